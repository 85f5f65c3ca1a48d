"""The published budget wall: one-sided and greedy.

Group by group, in order, a keep ratio is capped so that the budget is met with all later groups at their smallest:

    r_i <= max { r : use(r_1, ..., r_(i-1), r, low_(i+1), ..., low_n) <= 1 }

So late groups pay for early ones, and what is within the budget stays as it is. Unlike the published one, it never
cuts a group without a choice, and counts only what can be removed: such a group's smallest ratio is one.

References:
    Fan, Mu, Zhang, "Bayesian Optimization with Clustering and Rollback for CNN Auto Pruning", ECCV 2022, section 3.1;
    He et al., "AMC: AutoML for Model Compression", ECCV 2018, algorithm 1.
"""

from __future__ import annotations

import numpy as np

from bocr_onnx.cost import Widths
from bocr_onnx.search.projection import Projection
from bocr_onnx.search.space import Point

_CHORDS = 4


def cap(projection: Projection, points: Point) -> Point:
    """Returns keep ratios within the budget, none above what was asked, shape `(n_policies, n_groups)`.

    The use of the budget is convex along each group (a sum of products of lengths), so the chord between a ratio that
    fits and one that does not crosses the budget where it is met.

    Args:
        projection: Space, cost and budget.
        points: Keep ratios, shape `(n_policies, n_groups)`; those below the smallest are raised to it.
    """
    space = projection.space
    low = space.low / space.full
    asked = np.clip(points, low, 1)
    held = np.repeat(low[None], len(points), axis=0)
    used = _use(projection, held)
    for group in space.free:
        ratio, above = held[:, group].copy(), asked[:, group]
        held[:, group] = above
        wanted = _use(projection, held)
        over = wanted > 1
        for _ in range(_CHORDS if over.any() else 0):
            crossing = np.clip((1 - used) / np.maximum(wanted - used, 1e-12), 0, 1)
            ratio = ratio + (above - ratio) * crossing
            held[:, group] = np.where(over, ratio, above)
            used = _use(projection, held)
            if (used[over] > 1 - 1e-6).all():
                break
        used = np.where(over, used, wanted)
    return held


def execute(projection: Projection, point: Point) -> Widths:
    """Returns the widths that are executed after the wall, shape `(n_groups,)`, within the budget.

    Where rounding to the channel grid exceeds the budget, the capped ratios are projected onto it.

    Args:
        projection: Space, cost and budget.
        point: Keep ratios, shape `(n_groups,)`.
    """
    capped = cap(projection, point[None])
    widths = projection.space.snap(capped)[0]
    fits = projection.budget.use(projection.cost, widths[None])[0] <= 1
    return widths if fits else projection.execute(capped[0])


def _use(projection: Projection, ratios: Point) -> Point:
    return projection.budget.use(projection.cost, np.multiply(ratios, projection.space.full))
