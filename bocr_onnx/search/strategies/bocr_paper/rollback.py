"""When the published search falls back to a finer clustering, what it takes along, and where it goes on.

Ten of 200 evaluations are Sobol points. From evaluation 80, after 20 without an improvement, and at 100 at the latest,
the search rolls back; in the gradual form a second time from 130, at 150 at the latest. Other numbers of evaluations
scale all of these.

References:
    Fan, Mu, Zhang, "Bayesian Optimization with Clustering and Rollback for CNN Auto Pruning", ECCV 2022, section 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bocr_onnx.search.problem import Floats, Problem
from bocr_onnx.search.proposals.clusters import Clusters
from bocr_onnx.search.space import Point
from bocr_onnx.search.trial import Trial

N_ELITES = 10
MIN_STARTS = 4
MIN_EXTENT = 0.1
_WINDOWS = ((0.4, 0.5), (0.65, 0.75))


@dataclass(frozen=True, slots=True)
class Schedule:
    """The published schedule for a number of trials.

    Attributes:
        n_starts: Sobol points.
        patience: Trials without an improvement after which the search rolls back.
        windows: Windows of each rollback: the first number of ended trials at which it may come, and the last.
    """

    n_starts: int
    patience: int
    windows: tuple[tuple[int, int], ...]


def schedule(n_trials: int, n_phases: int) -> Schedule:
    """Returns the schedule; every phase but the last proposes at least once after the Sobol points.

    Args:
        n_trials: In all.
        n_phases: Clusterings; at most three.

    Example:
        >>> schedule(200, 3)
        Schedule(n_starts=10, patience=20, windows=((80, 100), (130, 150)))
        >>> schedule(8, 3)
        Schedule(n_starts=4, patience=2, windows=((5, 5), (6, 6)))
    """
    n_starts, windows = max(MIN_STARTS, round(n_trials / 20)), []
    least = n_starts + 1
    for first, last in _WINDOWS[: n_phases - 1]:
        opens = max(least, round(first * n_trials))
        windows.append((opens, max(opens, round(last * n_trials))))
        least = opens + 1
    return Schedule(n_starts, max(2, round(n_trials / 10)), tuple(windows))


def rollbacks(trials: tuple[Trial, ...], plan: Schedule) -> tuple[int, ...]:
    """Returns after how many ended trials the search rolled back, once per rollback so far.

    What failed or was stopped counts as an evaluation without an improvement; each rollback starts the count anew.

    Args:
        trials: That have ended, in order.
        plan: The schedule.
    """
    best, stalled = -np.inf, 0
    at: list[int] = []
    for count, trial in enumerate(trials, 1):
        stalled += 1
        if trial.objective is not None and trial.objective > best:
            best, stalled = trial.objective, 0
        if len(at) == len(plan.windows):
            break
        opens, closes = plan.windows[len(at)]
        if count >= closes or (count >= opens and stalled >= plan.patience):
            at.append(count)
            stalled = 0
    return tuple(at)


def elites(values: Floats, use: Floats) -> npt.NDArray[np.int64]:
    """Returns the numbers of the policies a rollback keeps, best first: 10, or half of them where that is fewer.

    Args:
        values: Objectives, shape `(n,)`.
        use: Share of the budget that is used, shape `(n,)`. Only policies within 1 % of it are kept where at least two
            are, as published; after the projection nearly all are, after the wall few.
    """
    near = np.flatnonzero(use >= 0.99)
    chosen = near if len(near) >= 2 else np.arange(len(values))
    n = min(N_ELITES, max(2, len(values) // 2))
    return np.asarray(chosen[np.argsort(-values[chosen], kind="stable")][:n])


@dataclass(frozen=True, slots=True)
class View:
    """The coordinates of one phase: a cluster's is the mean keep ratio of its groups, weighted by their MACs.

    Attributes:
        clusters: Cluster of every group, -1 where it cannot be cut, shape `(n_groups,)`.
        weights: Weights of groups in clusters, shape `(n_groups, n_clusters)`, columns sum to one.
        low: Smallest coordinate that asks for something else than a smaller one does, shape `(n_clusters,)`.
        extent: Least width of a box: 0.1, or what reaches the next width on both sides, shape `(n_clusters,)`.
    """

    clusters: Clusters
    weights: Floats
    low: Point
    extent: Point

    def expand(self, coordinates: Point) -> Point:
        """Returns keep ratios, shape `(n, n_groups)`, for coordinates `(n, n_clusters)`."""
        return np.where(self.clusters < 0, 1.0, coordinates[:, self.clusters])

    def coordinates(self, ratios: Point) -> Point:
        """Returns coordinates, shape `(n, n_clusters)`, for keep ratios `(n, n_groups)`."""
        return np.asarray(ratios @ self.weights)

    def box(self, points: Point) -> tuple[Point, Point]:
        """Returns the bounds after a rollback, each of shape `(n_clusters,)`: the least and largest of the elites.

        Where the elites agree, or nearly, the box extends to both sides of them up to its least width, cut at the
        ends of the space.

        Args:
            points: The elites' coordinates, shape `(n_elites, n_clusters)`; of none, the whole space.
        """
        if not len(points):
            return self.low, np.ones_like(self.low)
        below, above = points.min(axis=0), points.max(axis=0)
        lack = np.maximum(self.extent - (above - below), 0) / 2
        return np.clip(below - lack, self.low, 1), np.clip(above + lack, self.low, 1)


def make_view(problem: Problem, clusters: Clusters) -> View:
    """Returns the coordinates of a clustering."""
    space = problem.space
    member = clusters[:, None] == np.arange(int(clusters.max()) + 1)
    weights = member * np.maximum(np.array(problem.projection.cost.shares()), 1e-9)[:, None]
    steps = [np.diff(c).min() if len(c) > 1 else n for c, n in zip(space.choices, space.full, strict=True)]
    low = np.where(member, (space.low / space.full)[:, None], 1).min(axis=0)
    step = np.where(member, (np.array(steps) / space.full)[:, None], 1).min(axis=0)
    return View(clusters, weights / weights.sum(axis=0), low, np.maximum(MIN_EXTENT, 2 * step))
