"""One-shot recovery: every consumer is refitted on the original's kept inputs, in closed form.

For kept input columns S, with C and m of the original's patches:

    (C[S, S] + r I) W'^T = C[S, :] W^T        ridge r relative to the mean diagonal, float64
    b' = b + W m - W' m[S]

No data pass. What cannot be explained by the kept inputs is the recovery error

    e(S) = trace(W C W^T) - trace(W' C[S, :] W^T)

References:
    Least squares on kept inputs: He et al., "AMC: AutoML for Model Compression", ECCV 2018, section 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bocr_onnx.graph import Array, ModelGraph, Operand
from bocr_onnx.groups import GroupIndex
from bocr_onnx.recovery.blas import solve_positive
from bocr_onnx.recovery.moments import Moments
from bocr_onnx.recovery.patches import (
    Affine,
    Floats,
    bias_of,
    from_matrix,
    is_refitted,
    kept_columns,
    kept_outputs,
    to_matrix,
)
from bocr_onnx.slimming import Mask, on_grid

RIDGE = 1e-4


def fit_rows(covariance: Floats, kept: np.ndarray[tuple[int], np.dtype[np.int64]], target: Floats) -> Floats:
    """Returns W' of the ridge problem above, shape `(n_outputs, len(kept))`.

    Args:
        covariance: C, shape `(n, n)`.
        kept: S.
        target: C W^T, shape `(n, n_outputs)`.
    """
    inner = covariance[np.ix_(kept, kept)]
    inner[np.diag_indices_from(inner)] += RIDGE * max(float(np.trace(inner)) / len(kept), 1e-12)
    return solve_positive(inner, target[kept]).T


def recover_oneshot(
    index: GroupIndex,
    affines: tuple[Affine, ...],
    moments: Mapping[int, Moments],
    targets: Mapping[int, Floats],
    mask: Mask,
) -> dict[Operand, Array]:
    """Returns the refitted weights and biases of every operator that lost inputs, in slim shape.

    Args:
        index: Groups of the model.
        affines: Its weighted operators.
        moments: By node index.
        targets: C W^T by node index, from `fit_targets`.
        mask: Which channels stay.
    """
    graph = index.graph
    weights: dict[Operand, Array] = {}
    for affine in affines:
        number = affine.node.index
        if not is_refitted(affine) or number not in moments:
            continue
        columns = kept_columns(affine, index, mask)
        known = moments[number]
        if len(columns) == affine.n_columns:
            continue
        assert affine.bias is not None
        outputs = kept_outputs(affine, index, mask)
        original, n_own = graph.operand(affine.weight), affine.n_outputs // affine.blocks
        assert original is not None
        matrix = to_matrix(affine, graph, original)[outputs]
        each, bias = outputs.reshape(affine.blocks, -1), bias_of(affine, graph)[outputs].reshape(affine.blocks, -1)
        fitted = np.empty((*each.shape, len(columns)))
        for block, (own, mean) in enumerate(zip(matrix.reshape(*each.shape, -1), known.mean, strict=True)):
            fitted[block] = fit_rows(known.covariance[block], columns, targets[number][block][:, each[block] % n_own])
            bias[block] += own @ mean - fitted[block] @ mean[columns]
        found = {affine.weight: from_matrix(affine, graph, fitted.reshape(len(outputs), -1)),
                 affine.bias: bias.reshape(-1).astype(original.dtype)}  # fmt: skip
        weights |= {at: on_grid(index, mask, at, array) for at, array in found.items()}
    return weights


def fit_targets(graph: ModelGraph, affines: tuple[Affine, ...], moments: Mapping[int, Moments]) -> dict[int, Floats]:
    """Returns C W^T of every operator, shape `(blocks, n_columns, n_outputs)`, those of a block, by node index."""
    made = {}
    for affine in affines:
        weight = graph.operand(affine.weight)
        if not affine.depthwise and affine.node.index in moments and weight is not None:
            matrix = to_matrix(affine, graph, weight).reshape(affine.blocks, -1, affine.n_columns)
            made[affine.node.index] = np.matmul(moments[affine.node.index].covariance, matrix.swapaxes(1, 2))
    return made
