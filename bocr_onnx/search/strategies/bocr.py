"""`bocr`: clustered Bayesian optimization with rollback, losslessly.

The paper searches a space of one ratio per cluster and then falls back ("rolls back") to more clusters and to single
layers, throwing evaluations away each time. Here the surrogate always lives in full dimension on executed policies
and keeps all of them; the clusters shape only which candidates are proposed. The stage (coarse clusters, bridge
clusters, single groups) advances when the best objective has stalled, and the trust region shrinks with the stall.

References:
    Fan, Mu, Zhang, "Bayesian Optimization with Clustering and Rollback for CNN Auto Pruning", ECCV 2022, sections
    3.2 (clusters) and 3.3 (rollback); Eriksson et al., "Scalable Global Optimization via Local Bayesian
    Optimization", NeurIPS 2019 (trust region).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bocr_onnx.cost import Widths
from bocr_onnx.search.candidates import draw_candidates
from bocr_onnx.search.clusters import cluster_stages
from bocr_onnx.search.problem import Problem, allocate
from bocr_onnx.search.space import Point
from bocr_onnx.search.trial import Trial, completed, ratios

POOL = 1_500
EXECUTED = 24
N_ELITES = 6
START_RADIUS, MIN_RADIUS, SHRINK = 0.8, 0.15, 0.7


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the search stands.

    Attributes:
        number: Of the clustering, from coarse to fine.
        radius: Of the trust region, in logits.
    """

    number: int
    radius: float


def propose(problem: Problem, trials: tuple[Trial, ...]) -> tuple[Widths, str] | None:
    """Proposes the next policy."""
    starts = _starts(problem)
    if len(trials) < len(starts):
        return starts[len(trials)]
    done = completed(trials)
    if len(done) < 2:
        return _fresh(problem, trials, problem.rng(len(trials)).random(len(problem.space.full))), "scatter"
    return _improve(problem, trials, done, len(starts))


def _starts(problem: Problem) -> list[tuple[Widths, str]]:
    """Returns the first policies: allocations on the error curves in three sharpnesses, and uniform."""
    space = problem.space
    points: list[tuple[Point, str]] = [
        (allocate(problem) / space.full, "sensitivity"),
        (allocate(problem, 0.7) / space.full, "sensitivity, flatter"),
        (allocate(problem, 1.5) / space.full, "sensitivity, sharper"),
        (np.full(len(space.full), 0.5), "uniform"),
    ]
    starts: list[tuple[Widths, str]] = []
    for point, origin in points[: max(1, problem.n_trials // 2)]:
        widths = problem.projection.execute(point)
        if not any(np.array_equal(widths, w) for w, _ in starts):
            starts.append((widths, origin))
    return starts


def stage_of(trials: tuple[Trial, ...], n_starts: int, n_stages: int, patience: int) -> Stage:
    """Returns the stage that a history has reached.

    Args:
        trials: All trials, in order.
        n_starts: How many of them were starts.
        n_stages: How many clusterings there are.
        patience: Trials without improvement after which the stage advances, or in the last one the radius shrinks.
    """
    best, stalled, stage, radius = -np.inf, 0, 0, START_RADIUS
    for number, trial in enumerate(trials):
        if trial.objective is not None and trial.objective > best:
            best, stalled = trial.objective, 0
            continue
        stalled += number >= n_starts
        if stalled >= patience:
            stalled = 0
            if stage < n_stages - 1:
                stage += 1
            radius = max(MIN_RADIUS, radius * SHRINK)
    return Stage(stage, radius)


def _improve(
    problem: Problem, trials: tuple[Trial, ...], done: tuple[Trial, ...], n_starts: int
) -> tuple[Widths, str] | None:
    from bocr_onnx.search.surrogate import fit_surrogate

    space, rng = problem.space, problem.rng(len(trials))
    points = ratios(done, space.full)
    objectives = np.array([t.objective for t in done], dtype=np.float64)
    surrogate = fit_surrogate(points, problem.proxy(points), objectives)
    stages = cluster_stages(problem)
    stage = stage_of(trials, n_starts, len(stages), max(2, problem.n_trials // 12))
    elites = points[np.argsort(-surrogate.posterior_mean(), kind="stable")[:N_ELITES]]
    pool = problem.projection.shift(
        draw_candidates(elites, space.low / space.full, stages[stage.number], stage.radius, POOL, rng)
    )
    gains = surrogate.acquisition(pool, problem.proxy(pool), problem.seed)
    tried = {t.widths for t in trials}
    executed: list[Widths] = []
    for row in np.argsort(-gains, kind="stable")[: 4 * EXECUTED]:
        widths = problem.projection.execute(pool[row])
        if tuple(widths.tolist()) not in tried:
            tried.add(tuple(widths.tolist()))
            executed.append(widths)
        if len(executed) == EXECUTED:
            break
    if not executed:
        return _fresh(problem, trials, rng.random(len(space.full))), "scatter"
    exact = np.array(executed) / space.full
    best = int(np.argmax(surrogate.acquisition(exact, problem.proxy(exact), problem.seed)))
    return executed[best], f"stage {stage.number + 1} of {len(stages)}"


def _fresh(problem: Problem, trials: tuple[Trial, ...], point: Point) -> Widths:
    low = problem.space.low / problem.space.full
    return problem.projection.execute(low + (1 - low) * point)
