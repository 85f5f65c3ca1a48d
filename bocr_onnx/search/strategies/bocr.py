"""`bocr`: clustered Bayesian optimization with rollback, losslessly; and `bo`, the same without clusters.

The paper searches a space of one ratio per cluster and then falls back ("rolls back") to more clusters and to single
layers, throwing evaluations away each time. Here the surrogate always lives in full dimension on executed policies
and keeps all of them; the clusters shape only which candidates are proposed. The phase (coarse clusters, bridge
clusters, single groups) advances when the best objective has stalled, and the trust region shrinks with the stall.

References:
    Fan, Mu, Zhang, "Bayesian Optimization with Clustering and Rollback for CNN Auto Pruning", ECCV 2022, sections
    3.2 (clusters) and 3.3 (rollback); Eriksson et al., "Scalable Global Optimization via Local Bayesian
    Optimization", NeurIPS 2019 (trust region).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bocr_onnx.cost import Widths
from bocr_onnx.search.problem import Problem
from bocr_onnx.search.proposals.candidates import draw_candidates
from bocr_onnx.search.proposals.clusters import Clusters, cluster_phases
from bocr_onnx.search.proposals.starts import scatter, start_policies
from bocr_onnx.search.racing import objectives
from bocr_onnx.search.space import Point
from bocr_onnx.search.strategies.records import Propose
from bocr_onnx.search.trial import Proposal, Trial, ratios, scored

if TYPE_CHECKING:
    from bocr_onnx.search.proposals.surrogate import Hyperparameters

POOL = 1_000
EXECUTED = 24
N_ELITES = 6
REFIT, ALWAYS_REFIT = 5, 20
"""The surrogate's hyperparameters are fitted anew every so many trials, and always while there are few."""

START_RADIUS, MIN_RADIUS, SHRINK = 0.8, 0.15, 0.7


@dataclass(frozen=True, slots=True)
class Phase:
    """Where the search stands.

    Attributes:
        number: Number of the clustering, from coarse to fine.
        radius: Radius of the trust region, in logits.
    """

    number: int
    radius: float


def bocr(problem: Problem) -> Propose:
    """Proposes by phases: coarse clusters, bridge clusters, single groups."""
    return _Guided(problem, cluster_phases(problem)).propose


def bo(problem: Problem) -> Propose:
    """Proposes with every group a cluster of its own: the control that shows what clusters are worth."""
    return _Guided(problem, (np.arange(len(problem.space.full)),)).propose


def phase_of(trials: tuple[Trial, ...], n_starts: int, n_phases: int, patience: int) -> Phase:
    """Returns the phase that a history has reached.

    Args:
        trials: All trials, in order.
        n_starts: How many of them were starts.
        n_phases: How many clusterings there are.
        patience: Trials without improvement after which the phase advances, or in the last one the radius shrinks.
    """
    best, stalled, phase, radius = -np.inf, 0, 0, START_RADIUS
    for number, trial in enumerate(trials):
        if trial.objective is not None and trial.objective > best:
            best, stalled = trial.objective, 0
            continue
        stalled += number >= n_starts
        if stalled >= patience:
            stalled = 0
            if phase < n_phases - 1:
                phase += 1
            radius = max(MIN_RADIUS, radius * SHRINK)
    return Phase(phase, radius)


class _Guided:
    """A search guided by the surrogate.

    Args:
        problem: The search.
        phases: Clusterings, from coarse to fine.
    """

    def __init__(self, problem: Problem, phases: tuple[Clusters, ...]) -> None:
        self._problem = problem
        self._phases = phases
        self._starts = start_policies(problem)
        self._fitted: tuple[tuple[Trial, ...], Hyperparameters] | None = None

    def propose(self, trials: tuple[Trial, ...], pending: tuple[Widths, ...]) -> Proposal | None:
        """Proposes the next policy."""
        number = len(trials) + len(pending)
        if number < len(self._starts):
            return self._starts[number]
        rng = self._problem.rng(number)
        if len(scored(self._problem.prior.same + trials)) < 2:
            return scatter(self._problem, rng)
        return self._improve(trials, pending, rng) or scatter(self._problem, rng)

    def _improve(
        self, trials: tuple[Trial, ...], pending: tuple[Widths, ...], rng: np.random.Generator
    ) -> Proposal | None:
        from bocr_onnx.search.proposals.surrogate import fit_surrogate

        problem, space = self._problem, self._problem.space
        known = scored(problem.prior.same + trials)
        points = ratios(known, space.full)
        surrogate = fit_surrogate(problem, points, objectives(known), self._hyperparameters(trials))
        patience = max(2, problem.n_trials // 12)
        phase = phase_of(trials, len(self._starts), len(self._phases), patience)
        own = self._on_budget(trials, points)
        elites = own[np.argsort(-surrogate.posterior_mean(own), kind="stable")[:N_ELITES]]
        awaited = np.array(pending, dtype=np.float64).reshape(-1, len(space.full)) / space.full
        pool = problem.projection.shift(
            draw_candidates(elites, space.low / space.full, self._phases[phase.number], phase.radius, POOL, rng)
        )
        gains = surrogate.acquisition(pool, own, awaited, problem.seed)
        executed = self._execute(pool[np.argsort(-gains, kind="stable")[: 4 * EXECUTED]], trials, pending)
        if not executed:
            return None
        gains = surrogate.acquisition(np.array(executed) / space.full, own, awaited, problem.seed)
        return Proposal(executed[int(np.argmax(gains))], f"phase {phase.number + 1} of {len(self._phases)}")

    def _hyperparameters(self, trials: tuple[Trial, ...]) -> Hyperparameters:
        """Returns the hyperparameters of the last round number of trials; a fit costs more than all the rest."""
        from bocr_onnx.search.proposals.surrogate import fit_surrogate

        n = len(trials) - len(trials) % (REFIT if len(trials) > ALWAYS_REFIT else 1)
        known = scored(self._problem.prior.same + trials[:n])
        known = known if len(known) > 1 else scored(trials)
        if self._fitted is None or self._fitted[0] != known:
            points = ratios(known, self._problem.space.full)
            self._fitted = known, fit_surrogate(self._problem, points, objectives(known)).hyperparameters
        return self._fitted[1]

    def _on_budget(self, trials: tuple[Trial, ...], points: Point) -> Point:
        """Returns the policies of this search; where none has a score yet, what is known, shifted onto the budget."""
        own = scored(trials)
        return ratios(own, self._problem.space.full) if own else self._problem.projection.shift(points)

    def _execute(self, pool: Point, trials: tuple[Trial, ...], pending: tuple[Widths, ...]) -> list[Widths]:
        """Returns the first policies of a pool that have not been tried, as widths."""
        tried = {t.widths for t in trials} | {tuple(int(w) for w in widths) for widths in pending}
        executed: list[Widths] = []
        for point in pool:
            widths = self._problem.projection.execute(point)
            key = tuple(int(w) for w in widths)
            if key not in tried:
                tried.add(key)
                executed.append(widths)
            if len(executed) == EXECUTED:
                break
        return executed
