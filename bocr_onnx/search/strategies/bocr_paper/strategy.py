"""`bocr-paper`: Bayesian optimization with clustering and rollback as published, without the bugs.

The search lives in one coordinate per cluster. It begins with a few clusters and Sobol points, goes on with a
Gaussian process of one lengthscale and expected improvement, and rolls back to more clusters and to single groups.
Each rollback restarts the process: it keeps the elites, searches the box they span, and forgets the rest.

Unlike the published code, everything is modelled where it was executed: a trial's coordinates are those of its widths,
and a candidate's improvement is that of the policy it becomes on the budget. What earlier searches know is not used.

References:
    Fan, Mu, Zhang, "Bayesian Optimization with Clustering and Rollback for CNN Auto Pruning", ECCV 2022.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bocr_onnx.cost import Widths
from bocr_onnx.search.problem import Floats, Problem
from bocr_onnx.search.racing import objectives
from bocr_onnx.search.space import Point
from bocr_onnx.search.strategies.bocr_paper import wall
from bocr_onnx.search.strategies.bocr_paper.densities import published_clusters
from bocr_onnx.search.strategies.bocr_paper.rollback import View, elites, make_view, rollbacks, schedule
from bocr_onnx.search.strategies.records import Propose
from bocr_onnx.search.trial import Proposal, Trial, ratios, scored

POOL = 1_024
N_PARENTS, N_CHILDREN = 8, 16
RADII = (0.1, 0.03)
EXECUTED = 8
N_ATTEMPTS = 20


def bocr_paper(problem: Problem) -> Propose:
    """Proposes by the published method."""
    return _Paper(problem).propose


@dataclass(frozen=True, slots=True)
class Phase:
    """Where the search stands.

    Attributes:
        number: Number of the clustering, from coarse to fine.
        view: Its coordinates.
        low: Least coordinates, shape `(n_clusters,)`.
        high: Largest coordinates.
        points: Coordinates of the elites and what came after them, shape `(n, n_clusters)`.
        values: Their objectives, shape `(n,)`.
    """

    number: int
    view: View
    low: Point
    high: Point
    points: Point
    values: Floats

    def draw(self, n: int, rng: np.random.Generator) -> Point:
        """Returns quasi-random coordinates in the box, shape `(n, n_clusters)`."""
        from scipy.stats import qmc

        spread = qmc.Sobol(len(self.low), seed=rng).random_base2(max(n - 1, 1).bit_length())[:n]
        return np.asarray(self.low + (self.high - self.low) * spread)


class _Paper:
    """The published search.

    Args:
        problem: The search.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._views = [make_view(problem, clusters) for clusters in published_clusters(problem)]
        self._plan = schedule(problem.n_trials, len(self._views))
        rng = np.random.default_rng(problem.seed)
        self._starts = self._views[0].expand(self.phase(()).draw(self._plan.n_starts, rng))

    def propose(self, trials: tuple[Trial, ...], pending: tuple[Widths, ...]) -> Proposal | None:
        """Proposes the next policy, one that was not tried as long as one can be drawn."""
        number = len(trials) + len(pending)
        rng, phase = self._problem.rng(number), self.phase(trials)
        tried = {t.widths for t in trials} | {tuple(int(w) for w in widths) for widths in pending}
        if number < len(self._starts):
            found, origin = self._execute(self._starts[number : number + 1], tried, 1), "sobol"
        elif len(phase.points) < 2:
            found, origin = [], ""
        else:
            full = self._problem.space.full
            awaited = np.array(pending, dtype=np.float64).reshape(-1, len(full)) / full
            found = self._improve(phase, phase.view.coordinates(awaited), tried, rng)
            origin = f"phase {phase.number + 1} of {len(self._views)}"
        return Proposal(found[0], origin) if found else self._scatter(phase, tried, rng)

    def phase(self, trials: tuple[Trial, ...]) -> Phase:
        """Returns the phase that a history has reached."""
        space, projection = self._problem.space, self._problem.projection
        at = rollbacks(trials, self._plan)
        view = self._views[len(at)]
        known = scored(trials)
        values, executed = objectives(known), ratios(known, space.full)
        n_before = len(scored(trials[: at[-1]])) if at else 0
        before = np.array([t.widths for t in known[:n_before]], dtype=np.int64).reshape(-1, len(space.full))
        kept = elites(values[:n_before], projection.budget.use(projection.cost, before))
        after = np.arange(n_before, len(known))
        points = view.coordinates(executed)
        low, high = view.box(points[kept])
        chosen = np.concatenate([kept, after])
        return Phase(len(at), view, low, high, points[chosen], values[chosen])

    def _improve(
        self, phase: Phase, awaited: Point, tried: set[tuple[int, ...]], rng: np.random.Generator
    ) -> list[Widths]:
        """Returns executed policies, the most promising first."""
        from bocr_onnx.search.strategies.bocr_paper.isotropic import fit_isotropic

        surrogate, view = fit_isotropic(phase.points, phase.values, awaited), phase.view

        def gain(coordinates: Point) -> Floats:
            return surrogate.improvement(view.coordinates(self._constrain(view.expand(coordinates))))

        pool = phase.draw(POOL, rng)
        gains = gain(pool)
        for radius in RADII:
            parents = pool[np.argsort(-gains, kind="stable")[:N_PARENTS]].repeat(N_CHILDREN, axis=0)
            moves = radius * (phase.high - phase.low) * rng.normal(size=parents.shape)
            children = np.clip(parents + moves, phase.low, phase.high)
            pool, gains = np.concatenate([pool, children]), np.concatenate([gains, gain(children)])
        ranked = view.expand(pool[np.argsort(-gains, kind="stable")[: 4 * EXECUTED]])
        found = self._execute(ranked, tried, EXECUTED)
        if not found:
            return []
        gains = surrogate.improvement(view.coordinates(np.array(found) / self._problem.space.full))
        return [found[i] for i in np.argsort(-gains, kind="stable")]

    def _scatter(self, phase: Phase, tried: set[tuple[int, ...]], rng: np.random.Generator) -> Proposal:
        """Returns a policy drawn in the box, else anywhere; one that was tried only where no other was drawn."""
        low = self._problem.space.low / self._problem.space.full
        inside = phase.view.expand(phase.draw(N_ATTEMPTS, rng))
        anywhere = low + (1 - low) * rng.random((N_ATTEMPTS, len(low)))
        found = self._execute(np.concatenate([inside, anywhere]), tried, 1)
        return Proposal(found[0] if found else self._executed(anywhere[0]), "random")

    def _execute(self, points: Iterable[Point], tried: set[tuple[int, ...]], n: int) -> list[Widths]:
        """Returns the first `n` policies of some that were not tried, as widths, none twice."""
        found: dict[tuple[int, ...], Widths] = {}
        for point in points:
            widths = self._executed(point)
            key = tuple(int(w) for w in widths)
            if key not in tried:
                found.setdefault(key, widths)
            if len(found) == n:
                break
        return list(found.values())

    def _constrain(self, points: Point) -> Point:
        projection = self._problem.projection
        walled = self._problem.settings.constraint == "wall"
        return wall.cap(projection, points) if walled else projection.shift(points)

    def _executed(self, point: Point) -> Widths:
        projection = self._problem.projection
        walled = self._problem.settings.constraint == "wall"
        return wall.execute(projection, point) if walled else projection.execute(point)
