"""A constant without the removed channels."""

from __future__ import annotations

import numpy as np

from bocr_onnx.graph import Array, Operand
from bocr_onnx.groups import GroupIndex
from bocr_onnx.slimming.plan import Mask, kept_positions


def cut_operand(index: GroupIndex, mask: Mask, at: Operand) -> Array:
    """Returns a constant operand without the removed channels."""
    graph = index.graph
    array = graph.operand(at)
    assert array is not None, f"operand {at} of {graph.label} is not constant"
    return take(index, mask, at, array)


def take(index: GroupIndex, mask: Mask, at: Operand, array: Array) -> Array:
    """Returns what is kept of an array of the shape of a constant operand; itself where nothing goes."""
    for axis, channels in index.slices.get(at, {}).items():
        kept = kept_positions(channels, mask)
        if len(kept) < len(channels):
            array = np.take(array, kept, axis=axis)
    return array
