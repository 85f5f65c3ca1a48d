"""Features of groups: those that mean the same in every model, and those of the published agent.

    group_features      relative depth, log2 channels, log2 readers' outputs, kernel, stride, share of the MACs,
                        share after it, log sensitivity at half width, error curve at 0.25 and 0.75, importance
                        spread and the share its best half carries
    published_features  index, log2 readers' outputs, log2 channels, stride, kernel, weights, MACs: what He et al.
                        call t, n, c, stride, k, W and FLOPs, each divided by its largest value

References:
    He et al., "AMC: AutoML for Model Compression", ECCV 2018, section 3.1; Mu et al., "Boosting the Convergence of
    Reinforcement Learning-based Auto-pruning Using Historical Data", IEEE TCAD 43(2), 2024.
"""

from __future__ import annotations

import numpy as np

from bocr_onnx.search.problem import Floats, Problem
from bocr_onnx.search.traits import GroupTraits


def group_features(problem: Problem) -> Floats:
    """Returns features that are comparable between models, shape `(n_groups, 12)`, each of order one."""
    full, traits = problem.space.full, problem.traits
    n = len(full)
    share = macs_shares(problem)
    behind = np.concatenate([np.cumsum(share[::-1])[::-1][1:], [0.0]]) / max(float(share.sum()), 1e-12)
    columns = [
        np.arange(n) / max(n - 1, 1),
        np.log2(full) / 10,
        np.log2([t.n_outputs for t in traits]) / 10,
        np.array([t.kernel for t in traits]) / 5,
        np.array([t.stride for t in traits]) / 2,
        share * n / max(float(share.sum()), 1e-12) / 4,
        behind,
        _log_sensitivity(problem),
        _curve(problem, 0.25),
        _curve(problem, 0.75),
        *_importance(traits),
    ]
    return np.stack(columns, axis=1)


def published_features(problem: Problem) -> Floats:
    """Returns the group features of the published agent, shape `(n_groups, 7)`, each in [0, 1]."""
    full, traits = problem.space.full, problem.traits
    columns = np.stack(
        [
            np.arange(len(full), dtype=np.float64),
            np.log2([t.n_outputs for t in traits]),
            np.log2(full),
            np.array([t.stride for t in traits], dtype=np.float64),
            np.array([t.kernel for t in traits], dtype=np.float64),
            np.array([t.n_params for t in traits], dtype=np.float64),
            np.array([t.macs for t in traits]),
        ],
        axis=1,
    )
    return np.asarray(columns / np.maximum(columns.max(axis=0), 1e-12))


def macs_shares(problem: Problem) -> Floats:
    """Returns the share of the MACs that each group controls, shape `(n_groups,)`."""
    full = problem.space.full
    without = np.repeat(full[None], len(full), axis=0)
    np.fill_diagonal(without, 0)
    cost = problem.projection.cost
    return np.asarray(1 - cost.macs(without) / max(float(cost.macs(full)[0]), 1e-12))


def _curve(problem: Problem, ratio: float) -> Floats:
    """Returns each error curve at a keep ratio, as a share of its largest value."""
    return np.array([np.interp(ratio * (len(c) - 1), np.arange(len(c)), c) / max(c[0], 1e-12) for c in problem.curves])


def _log_sensitivity(problem: Problem) -> Floats:
    """Returns the logarithm of the error at half width, standardised over the groups."""
    half = np.log([np.interp(0.5 * (len(c) - 1), np.arange(len(c)), c) + 1e-9 for c in problem.curves])
    return np.asarray((half - half.mean()) / max(float(half.std()), 1e-9) / 2)


def _importance(traits: tuple[GroupTraits, ...]) -> tuple[Floats, Floats]:
    """Returns the coefficient of variation of channel importances, and the share of the better half."""
    spreads, halves = [], []
    for known in traits:
        values = np.sort(np.array(known.importance))[::-1]
        total = max(float(values.sum()), 1e-12)
        spreads.append(float(values.std() / max(values.mean(), 1e-12)))
        halves.append(float(values[: max(1, len(values) // 2)].sum()) / total)
    return np.array(spreads), np.array(halves)
