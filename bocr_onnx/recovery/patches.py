"""A weighted operator as a matrix product: weight matrix, input patches, and back.

    Y = P W^T + b,   P: (n_rows, n_inputs * taps),   W: (n_outputs, n_inputs * taps)

A row of P is what the operator reads for one output position of one image. Conv reads a window (`taps` entries per
input channel), Gemm and MatMul a vector (`taps` = 1). ConvTranspose is a convolution too: over its input with zeros
between the entries, by the window turned round. A grouped convolution is several such products, its blocks, side by
side; a depthwise one has a block for every channel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bocr_onnx.graph import Array, ModelGraph, Node, Operand
from bocr_onnx.groups import Channels, GroupIndex
from bocr_onnx.recovery.windows import CONVOLUTIONS
from bocr_onnx.slimming import Mask, kept_positions, output_axis, storage

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Affine:
    """A weighted operator whose weights recovery may set.

    Attributes:
        node: The operator.
        weight: Operand that holds the weight.
        bias: Operand that holds the bias; Conv and Gemm without one get it added; of MatMul that of an Add after it.
            None where there is none, as for a grouped ConvTranspose without one.
        blocks: Blocks of the original that read inputs of their own each; one, unless a convolution is grouped.
        n_inputs: Input channels of each block of the original.
        n_outputs: Outputs of the original, of all blocks.
        taps: Window entries per input channel.
    """

    node: Node
    weight: Operand
    bias: Operand | None
    blocks: int
    n_inputs: int
    n_outputs: int
    taps: int

    @property
    def depthwise(self) -> bool:
        """Returns whether every block reads one channel only, and goes with it."""
        return self.blocks > 1 and self.n_inputs == 1

    @property
    def n_columns(self) -> int:
        """Returns the columns of a block's matrix."""
        return self.n_inputs * self.taps

    def n_blocks(self, n_outputs: int) -> int:
        """Returns how many blocks make so many outputs of a slim model."""
        return n_outputs * self.blocks // self.n_outputs if self.depthwise else self.blocks


def find_affines(index: GroupIndex) -> tuple[Affine, ...]:
    """Returns the operators that recovery can fit, in graph order.

    Left out are weights that several operators share, integers that no DequantizeLinear reads alone, transposed
    convolutions whose padding follows from a shape, and operators whose channels cannot be cut.
    """
    graph = index.graph
    found = []
    for node in graph.nodes:
        at = (node.index, 1)
        if node.op not in (*CONVOLUTIONS, "Gemm", "MatMul") or node.domain or at not in index.slices:
            continue
        weight = graph.operand(at)
        if weight is None or (node.op == "ConvTranspose" and not _pads_are_given(node)):
            continue
        shared = len(graph.readers[node.inputs[1]]) > 1 or node.attributes.get("transA", 0)
        scaled = node.attributes.get("alpha", 1.0) != 1.0 or node.attributes.get("beta", 1.0) != 1.0
        shaped = node.inputs[0] in graph.shapes and node.outputs[0] in graph.shapes
        plain = graph.rounded(node.inputs[1]) is None
        stored = weight.dtype.kind == "f" and (plain or storage(graph, node.inputs[1]) is not None)
        if not stored or shared or scaled or not shaped or (node.op == "MatMul" and weight.ndim != 2):
            continue
        blocks = int(node.attributes.get("group", 1)) if node.op in CONVOLUTIONS else 1
        inner, outer = (weight.shape[axis] for axis in _sides(graph, node))
        if node.op == "ConvTranspose":
            inner, outer = inner // blocks, outer * blocks
        bias = (node.index, 2) if _takes_bias(graph, node, blocks, plain=plain) else _added_after(graph, node, outer)
        found.append(Affine(node, at, bias, blocks, inner, outer, math.prod(weight.shape[2:])))
    return tuple(found)


def _sides(graph: ModelGraph, node: Node) -> tuple[int, int]:
    """Returns the axes of a weight that count inputs and outputs."""
    outputs = output_axis(graph, node.index)
    return 1 - outputs, outputs


def _pads_are_given(node: Node) -> bool:
    auto = node.attributes.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    return auto and not node.attributes.get("output_shape")


def is_refitted(affine: Affine) -> bool:
    """Returns whether a closed form refits an operator on the inputs that it keeps."""
    return not affine.depthwise and affine.bias is not None


def _takes_bias(graph: ModelGraph, node: Node, blocks: int, *, plain: bool) -> bool:
    """Returns whether a fit may set the bias; none is added to integer weights, which a kernel for integers reads."""
    if not plain and (not node.input(2) or storage(graph, node.input(2)) is None):
        return False
    if node.op == "Conv" or (node.op == "ConvTranspose" and (blocks == 1 or node.input(2))):
        return True
    if node.op != "Gemm":
        return False
    bias = graph.constant(node.input(2))
    return not node.input(2) or (bias is not None and bias.ndim == 1 and bias.size > 1)


def _added_after(graph: ModelGraph, node: Node, n_outputs: int) -> Operand | None:
    """Returns the constant that an Add after a MatMul adds to each output, or None."""
    readers = graph.readers.get(node.outputs[0], ())
    if node.op != "MatMul" or len(readers) != 1 or node.outputs[0] in graph.outputs:
        return None
    after = graph.nodes[readers[0][0]]
    at = (after.index, 1 - readers[0][1])
    name = after.input(at[1])
    bias = graph.constant(name) if after.op == "Add" else None
    alone = bias is not None and bias.shape == (n_outputs,) and len(graph.readers.get(name, ())) == 1
    return at if alone and n_outputs > 1 else None


def to_matrix(affine: Affine, graph: ModelGraph, weight: Array) -> Floats:
    """Returns a weight, the original's or a slim one, as a matrix, shape `(n_outputs, n_inputs * taps)`, float64."""
    if affine.node.op == "ConvTranspose":
        n_blocks = len(weight) if affine.depthwise else affine.blocks
        turned = np.flip(weight, axis=tuple(range(2, weight.ndim)))
        weight = turned.reshape(n_blocks, -1, weight.shape[1], affine.taps).swapaxes(1, 2)
        return weight.reshape(n_blocks * weight.shape[1], -1).astype(np.float64)
    if output_axis(graph, affine.node.index) == 1:
        weight = weight.T
    return weight.reshape(weight.shape[0], -1).astype(np.float64)


def from_matrix(affine: Affine, graph: ModelGraph, matrix: Floats) -> Array:
    """Returns a matrix as a weight in the layout of the operator, in the original's element type."""
    original = graph.operand(affine.weight)
    assert original is not None
    if affine.node.op == "ConvTranspose":
        n_blocks = affine.n_blocks(len(matrix))
        turned = matrix.reshape(n_blocks, len(matrix) // n_blocks, -1, affine.taps).swapaxes(1, 2)
        turned = turned.reshape(-1, turned.shape[2], *original.shape[2:])
        return np.ascontiguousarray(np.flip(turned, axis=tuple(range(2, turned.ndim))), dtype=original.dtype)
    if output_axis(graph, affine.node.index) == 1:
        return np.ascontiguousarray(matrix.T, dtype=original.dtype)
    return np.ascontiguousarray(matrix.reshape(len(matrix), -1, *original.shape[2:]), dtype=original.dtype)


def bias_of(affine: Affine, graph: ModelGraph) -> Floats:
    """Returns the original's bias, zeros where it has none, shape `(n_outputs,)`, float64."""
    found = graph.operand(affine.bias) if affine.bias else None
    return np.zeros(affine.n_outputs) if found is None else found.astype(np.float64)


def kept_outputs(affine: Affine, index: GroupIndex, mask: Mask) -> npt.NDArray[np.int64]:
    """Returns the outputs that stay, counted over all blocks."""
    axes, axis = index.slices[affine.weight], output_axis(index.graph, affine.node.index)
    if affine.node.op != "ConvTranspose":
        return _kept(axes, axis, affine.n_outputs, mask)
    each = affine.n_outputs // affine.blocks
    blocks = _kept(axes, 0, affine.blocks, mask) if affine.depthwise else np.arange(affine.blocks)
    return (blocks[:, None] * each + _kept(axes, axis, each, mask)).reshape(-1)


def kept_columns(affine: Affine, index: GroupIndex, mask: Mask) -> npt.NDArray[np.int64]:
    """Returns the columns of the weight matrix that stay: those of the kept inputs, all taps of each."""
    inputs = np.arange(1) if affine.depthwise else kept_positions(inner_channels(affine, index), mask)
    return (inputs[:, None] * affine.taps + np.arange(affine.taps)).reshape(-1)


def inner_channels(affine: Affine, index: GroupIndex) -> Channels:
    """Returns the channels that the inputs of the first block hold, minus one where they are fixed.

    The i-th inputs of all blocks stay or go together, and a depthwise operator's go with its outputs.
    """
    axis = 1 - output_axis(index.graph, affine.node.index)
    channels = None if affine.depthwise else index.slices[affine.weight].get(axis)
    return np.full(affine.n_inputs, -1) if channels is None else channels[: affine.n_inputs]


def _kept(axes: Mapping[int, npt.NDArray[np.int64]], axis: int, n: int, mask: Mask) -> npt.NDArray[np.int64]:
    return kept_positions(axes[axis], mask) if axis in axes else np.arange(n)
