"""How much a channel matters: the energy it puts into its consumers.

    importance(c) = sum over consumers, outputs o and taps t of E[p_ct^2] W_oct^2

With images the energies come from the moments of the original; without, every energy counts as one, which leaves
the squared norm of the consumers' weights. Ties go to the lower channel number.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bocr_onnx.evaluation.moments import Moments
from bocr_onnx.evaluation.patches import Affine, Floats, to_matrix
from bocr_onnx.graph import ModelGraph
from bocr_onnx.groups import GroupIndex
from bocr_onnx.slimming import Mask, output_axis


def channel_importance(
    graph: ModelGraph, index: GroupIndex, affines: tuple[Affine, ...], moments: Mapping[int, Moments]
) -> Floats:
    """Returns the importance of every channel of every group, shape `(n_channels,)`, larger is kept first.

    Args:
        graph: The original.
        index: Its groups.
        affines: Its weighted operators.
        moments: By node index; may lack operators, or be empty.
    """
    total = np.zeros(index.n_channels)
    for affine in affines:
        axes = index.slices[affine.weight]
        inner = 1 - output_axis(graph, affine.node.index)
        if affine.depthwise or inner not in axes:
            continue
        weight = graph.operand(affine.weight)
        assert weight is not None
        matrix = to_matrix(affine, graph, weight)
        known = moments.get(affine.node.index)
        energy = known.energy if known is not None else np.ones(matrix.shape[1])
        per_input = ((matrix**2).sum(axis=0) * energy).reshape(-1, affine.taps).sum(axis=1)
        channels = axes[inner]
        cut = channels >= 0
        np.add.at(total, channels[cut], per_input[cut] / _scale(per_input))
    return total


def _scale(per_input: Floats) -> float:
    """Returns what makes consumers comparable: the whole energy of one of them."""
    return max(float(per_input.sum()), 1e-30)


def ranked_channels(index: GroupIndex, importance: Floats) -> tuple[Floats, ...]:
    """Returns for every group its channel numbers from the most to the least important."""
    return tuple(np.argsort(-importance[g.span], kind="stable") for g in index.groups)


def mask_of_widths(index: GroupIndex, ranked: tuple[Floats, ...], widths: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Mask:
    """Returns the mask that keeps the most important channels of every group.

    Args:
        index: The groups.
        ranked: From `ranked_channels`.
        widths: Kept channels per group, shape `(n_groups,)`.
    """
    mask = np.zeros(index.n_channels, dtype=bool)
    for group, order, width in zip(index.groups, ranked, widths, strict=True):
        mask[group.start + order[: int(width)].astype(np.int64)] = True
    return mask
