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
from bocr_onnx.slimming import output_axis


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
