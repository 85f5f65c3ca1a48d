"""What earlier searches suggest to try first.

For the same model and images: the best known policy on either side of the budget. For another model: its best policy,
read as a correction of the allocation on the error curves. Each group takes the correction of the groups most like
it:

    logit(ratio) = logit(allocation) + mean over the nearest past groups of (logit(best) - logit(allocation there))
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit

from bocr_onnx.search.allocation import allocate
from bocr_onnx.search.features import group_features
from bocr_onnx.search.prior import PriorSearch
from bocr_onnx.search.problem import Floats, Problem
from bocr_onnx.search.space import Point
from bocr_onnx.search.trial import completed, ratios

N_NEAREST = 3
_EDGE = 0.02


def hints(problem: Problem) -> list[Point]:
    """Returns keep ratios worth an early trial, each of shape `(n_groups,)`, not yet on the budget."""
    return [*_same_model(problem), *(_other_model(problem, prior) for prior in problem.prior.others)]


def _same_model(problem: Problem) -> list[Point]:
    known = completed(problem.prior.same)
    if not known:
        return []
    widths = np.array([t.widths for t in known], dtype=np.int64)
    use = problem.projection.budget.use(problem.projection.cost, widths)
    objectives = np.array([t.objective for t in known], dtype=np.float64)
    found = []
    for side in (use >= 1, use < 1):
        if side.any():
            distance = np.abs(np.log(use[side]))
            near = distance <= distance.min() + 0.02
            best = np.flatnonzero(side)[near][np.argmax(objectives[side][near])]
            found.append(ratios((known[best],), problem.space.full)[0])
    return found


def _other_model(problem: Problem, prior: PriorSearch) -> Point:
    start, best = np.array(prior.allocation), np.array(prior.ratios)[int(np.argmax(prior.rewards))]
    correction = _logit(best) - _logit(start)
    distance = np.linalg.norm(group_features(problem)[:, None] - np.array(prior.features)[None], axis=2)
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :N_NEAREST]
    logits = _logit(allocate(problem) / problem.space.full) + correction[nearest].mean(axis=1)
    return np.asarray(expit(logits))


def _logit(ratio: Floats) -> Floats:
    return np.asarray(logit(np.clip(ratio, _EDGE, 1 - _EDGE)))
