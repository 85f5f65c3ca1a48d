"""The latency of every policy, from the timings of some.

Coefficients of `bocr_onnx.cost.latency` are fitted by non-negative least squares of relative errors, with a ridge; the
block of channels is the one that predicts policies best which it was not fitted to. Timings of whole models need
nothing of a device but that it runs models, and see what no table of single kernels sees: caches, and what kernels cost
each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bocr_onnx.cost import CostModel, LatencyModel, Widths
from bocr_onnx.cost.latency import Floats

BLOCKS = (1, 4, 8, 16, 32)
"""Blocks of channels that are tried; of equals the first."""

RIDGE = 1e-3
N_FOLDS = 5


def fit_latency(cost: CostModel, widths: Sequence[Widths], times_ms: Sequence[float]) -> CostModel:
    """Returns a cost model with the latency that fits timings best.

    Args:
        cost: The cost model.
        widths: Policies; the first one the original.
        times_ms: Time of each in ms.
    """
    asked, shares = np.array(widths, dtype=np.float64), np.array(times_ms) / times_ms[0]
    tables = {block: cost.features(block).of(asked) for block in BLOCKS}
    errors = {block: _unseen_error(table, shares) for block, table in tables.items()}
    block = min(errors, key=lambda one: errors[one])
    found = LatencyModel(block, tuple(_solve(tables[block], shares)), float(times_ms[0]), errors[block])
    return replace(cost, latency=found)


def _solve(table: Floats, shares: Floats) -> Floats:
    """Returns coefficients of relative errors squared; the ridge draws towards all features alike."""
    from scipy.optimize import nnls

    design = np.concatenate([np.ones((len(table), 1)), table], axis=1)
    n = design.shape[1]
    rows = np.concatenate([design / shares[:, None], RIDGE * np.eye(n)])
    found, _ = nnls(rows, np.concatenate([np.ones(len(table)), np.full(n, RIDGE / n)]))
    return np.asarray(found, dtype=np.float64)


def _unseen_error(table: Floats, shares: Floats) -> float:
    """Returns the root mean square relative error on the policies that a fit leaves out, a fold at a time."""
    folds = np.arange(len(table)) % N_FOLDS
    errors = []
    for fold in range(N_FOLDS):
        left, used = folds == fold, folds != fold
        if left.any() and used.sum() > 1:
            coefficients = _solve(table[used], shares[used])
            errors.append((coefficients[0] + table[left] @ coefficients[1:]) / shares[left] - 1)
    return float(np.sqrt(np.mean(np.concatenate(errors) ** 2))) if errors else 0.0
