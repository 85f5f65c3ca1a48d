"""Weights that are stored as integers: what a fit says of them is rounded to their grid, and written as integers.

    w = (q - zero_point) * scale,    q an integer of the stored type

Either DequantizeLinear reads the integers, or QuantizeLinear before it makes them of numbers, as exports of training
that knows of quantization do; then those numbers are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bocr_onnx.graph import Array, ModelGraph, Node, Operand
from bocr_onnx.groups import GroupIndex
from bocr_onnx.slimming.plan import Mask
from bocr_onnx.slimming.taken import cut_operand


@dataclass(frozen=True, slots=True)
class Grid:
    """The numbers that a weight of a slim model can be, and where it is stored.

    Attributes:
        at: Operand that holds it.
        scale: Scale of the integers, of the shape of the weight or one that broadcasts to it.
        zero_point: Likewise.
        dtype: Type of the integers.
        holds_integers: Whether the operand holds them, and not the numbers that they are made of.
    """

    at: Operand
    scale: Array
    zero_point: Array
    dtype: np.dtype[np.integer[Any]]
    holds_integers: bool

    def nearest(self, weight: Array) -> Array:
        """Returns the nearest numbers of the grid, as the model computes them."""
        return np.asarray((self._integers(weight) - self.zero_point).astype(weight.dtype) * self.scale)

    def stored(self, weight: Array) -> Array:
        """Returns what the operand holds for a weight."""
        return self._integers(weight).astype(self.dtype) if self.holds_integers else self.nearest(weight)

    def _integers(self, weight: Array) -> npt.NDArray[np.int64]:
        bounds = np.iinfo(self.dtype)
        exact = np.rint(weight.astype(np.float64) / self.scale) + self.zero_point
        return np.asarray(np.clip(exact, bounds.min, bounds.max), dtype=np.int64)


def storage(graph: ModelGraph, name: str) -> tuple[Node, Operand] | None:
    """Returns the DequantizeLinear that makes a constant, and the operand that stores it.

    None where none makes it, or where what it reads is not that constant's alone.
    """
    node = graph.rounded(name)
    if node is None or node.op != "DequantizeLinear" or node.attributes.get("block_size", 0):
        return None
    before = graph.rounded(node.inputs[0])
    at = (node.index, 0) if before is None else (before.index, 0)
    integers, held = graph.constant(node.inputs[0]), graph.operand(at)
    source = graph.nodes[at[0]].inputs[0]
    alone = all(len(graph.readers.get(one, ())) == 1 for one in (name, node.inputs[0], source))
    if integers is None or held is None or integers.dtype.kind not in "iu" or not alone:
        return None
    return node, at


def grid_of(index: GroupIndex, mask: Mask, at: Operand) -> Grid | None:
    """Returns the grid of a slim operand; None where it is stored as it is.

    Args:
        index: Groups of the model.
        mask: Which channels stay.
        at: The operand, where it is read.
    """
    graph = index.graph
    found = storage(graph, graph.nodes[at[0]].input(at[1]))
    if found is None:
        return None
    node, where = found
    integers, weight = graph.constant(node.inputs[0]), graph.operand(at)
    assert integers is not None
    assert weight is not None
    scale = cut_operand(index, mask, (node.index, 1))
    zero_point = cut_operand(index, mask, (node.index, 2)) if node.input(2) else np.zeros((), np.int64)
    if scale.ndim and scale.size > 1:
        shape = [1] * weight.ndim
        shape[int(node.attributes.get("axis", 1))] = -1
        scale, zero_point = scale.reshape(shape), zero_point.reshape(shape) if zero_point.size > 1 else zero_point
    return Grid(where, scale, zero_point.astype(np.int64), integers.dtype, where[0] == node.index)


def stored(index: GroupIndex, mask: Mask, weights: Mapping[Operand, Array]) -> dict[Operand, Array]:
    """Returns slim operands where they are stored, as they are stored there; those that have a grid in its integers."""
    found = {}
    for at, array in weights.items():
        grid = grid_of(index, mask, at)
        found[at if grid is None else grid.at] = array if grid is None else grid.stored(array)
    return found


def on_grid(index: GroupIndex, mask: Mask, at: Operand, weight: Array) -> Array:
    """Returns a slim weight as near as its storage allows."""
    grid = grid_of(index, mask, at)
    return weight if grid is None else grid.nearest(weight)
