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

from bocr_onnx.search.prior import FEATURES, PUBLISHED
from bocr_onnx.search.problem import Floats, Problem
from bocr_onnx.search.readers import GroupReader


def group_features(problem: Problem) -> Floats:
    """Returns features that are comparable between models, shape `(n_groups, 12)`, each of order one."""
    full, readers = problem.space.full, problem.readers
    n, share = len(full), np.array(problem.projection.cost.shares())
    total = max(float(share.sum()), 1e-12)
    spread, better_half = _importance(readers)
    quarter, half, three_quarters = problem.errors_at(np.array([0.25, 0.5, 0.75])).T
    largest = np.maximum([curve[0] for curve in problem.curves], 1e-12)
    columns = {
        "depth": np.arange(n) / max(n - 1, 1),
        "channels": np.log2(full) / 10,
        "outputs": np.log2([r.n_outputs for r in readers]) / 10,
        "kernel": np.array([r.kernel for r in readers]) / 5,
        "stride": np.array([r.stride for r in readers]) / 2,
        "share": share * n / total / 4,
        "share after": np.concatenate([np.cumsum(share[::-1])[::-1][1:], [0.0]]) / total,
        "sensitivity": _standardised(np.log(half + 1e-9)) / 2,
        "quarter": quarter / largest,
        "three quarters": three_quarters / largest,
        "spread": spread,
        "better half": better_half,
    }
    return np.stack([columns[name] for name in FEATURES], axis=1)


def published_features(problem: Problem) -> Floats:
    """Returns the group features of the published agent, shape `(n_groups, 7)`, each in [0, 1]."""
    readers = problem.readers
    columns = {
        "depth": np.arange(len(readers), dtype=np.float64),
        "outputs": np.log2([r.n_outputs for r in readers]),
        "channels": np.log2(problem.space.full),
        "stride": np.array([r.stride for r in readers], dtype=np.float64),
        "kernel": np.array([r.kernel for r in readers], dtype=np.float64),
        "parameters": np.array([r.n_params for r in readers], dtype=np.float64),
        "macs": np.array([r.macs for r in readers]),
    }
    table = np.stack([columns[name] for name in PUBLISHED], axis=1)
    return np.asarray(table / np.maximum(table.max(axis=0), 1e-12))


def _standardised(values: Floats) -> Floats:
    return np.asarray((values - values.mean()) / max(float(values.std()), 1e-9))


def _importance(readers: tuple[GroupReader, ...]) -> tuple[Floats, Floats]:
    """Returns the coefficient of variation of channel importances, and the share of the better half."""
    spreads, halves = [], []
    for known in readers:
        values = np.sort(np.array(known.importance))[::-1]
        total = max(float(values.sum()), 1e-12)
        spreads.append(float(values.std() / max(values.mean(), 1e-12)))
        halves.append(float(values[: max(1, len(values) // 2)].sum()) / total)
    return np.array(spreads), np.array(halves)
