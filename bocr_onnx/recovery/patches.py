"""A weighted operator as a matrix product: weight matrix, input patches, and back.

    Y = P W^T + b,   P: (n_rows, n_inputs * taps),   W: (n_outputs, n_inputs * taps)

A row of P is what the operator reads for one output position of one image. Conv reads a window (`taps` entries per
input channel), Gemm and MatMul a vector (`taps` = 1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bocr_onnx.graph import Array, ModelGraph, Node, Operand
from bocr_onnx.groups import GroupIndex
from bocr_onnx.slimming import Mask, kept_positions, output_axis

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Affine:
    """A weighted operator whose weights recovery may set.

    Attributes:
        node: The operator.
        weight: Operand that holds the weight.
        bias: Operand that holds the bias; Conv and Gemm without one get it added. None for MatMul, whose bias,
            if any, is an Add after it.
        depthwise: Whether every output reads one input channel only.
        n_outputs: Outputs of the original.
        taps: Window entries per input channel.
    """

    node: Node
    weight: Operand
    bias: Operand | None
    depthwise: bool
    n_outputs: int
    taps: int


def find_affines(index: GroupIndex) -> tuple[Affine, ...]:
    """Returns the operators that recovery can fit, in graph order.

    Left out are grouped convolutions that are not depthwise, transposed convolutions, weights that several
    operators share or that are stored quantized, and operators whose channels cannot be cut.
    """
    graph = index.graph
    found = []
    for node in graph.nodes:
        at = (node.index, 1)
        if node.op not in ("Conv", "Gemm", "MatMul") or node.domain or at not in index.slices:
            continue
        weight = graph.operand(at)
        if weight is None:
            continue
        group = int(node.attributes.get("group", 1)) if node.op == "Conv" else 1
        shared = len(graph.readers[node.inputs[1]]) > 1 or node.attributes.get("transA", 0)
        scaled = node.attributes.get("alpha", 1.0) != 1.0 or node.attributes.get("beta", 1.0) != 1.0
        shaped = node.inputs[0] in graph.shapes and node.outputs[0] in graph.shapes
        stored = weight.dtype.kind == "f" and graph.rounded(node.inputs[1]) is None
        if not stored or shared or scaled or not shaped or (node.op == "MatMul" and weight.ndim != 2):
            continue
        depthwise = group > 1 and weight.shape[1] == 1 and weight.shape[0] == group
        if group > 1 and not depthwise:
            continue
        bias = (node.index, 2) if node.op == "Conv" or _plain_bias(graph, node) else None
        taps = math.prod(weight.shape[2:])
        found.append(Affine(node, at, bias, depthwise, weight.shape[output_axis(graph, node.index)], taps))
    return tuple(found)


def is_refitted(affine: Affine) -> bool:
    """Returns whether a closed form refits an operator on the inputs that it keeps."""
    return not affine.depthwise and affine.bias is not None


def _plain_bias(graph: ModelGraph, node: Node) -> bool:
    if node.op != "Gemm":
        return False
    bias = graph.constant(node.input(2))
    return not node.input(2) or (bias is not None and bias.ndim == 1 and bias.size > 1)


def to_matrix(affine: Affine, graph: ModelGraph, weight: Array) -> Floats:
    """Returns a weight as a matrix, shape `(n_outputs, n_inputs * taps)`, float64."""
    if output_axis(graph, affine.node.index) == 1:
        weight = weight.T
    return weight.reshape(weight.shape[0], -1).astype(np.float64)


def from_matrix(affine: Affine, graph: ModelGraph, matrix: Floats) -> Array:
    """Returns a matrix as a weight in the layout of the operator, in the original's element type."""
    original = graph.operand(affine.weight)
    assert original is not None
    if output_axis(graph, affine.node.index) == 1:
        return np.ascontiguousarray(matrix.T, dtype=original.dtype)
    return np.ascontiguousarray(matrix.reshape(len(matrix), -1, *original.shape[2:]), dtype=original.dtype)


def bias_of(affine: Affine, graph: ModelGraph) -> Floats:
    """Returns the original's bias, zeros where it has none, shape `(n_outputs,)`, float64."""
    found = graph.operand(affine.bias) if affine.bias else None
    return np.zeros(affine.n_outputs) if found is None else found.astype(np.float64)


def kept_outputs(affine: Affine, index: GroupIndex, mask: Mask) -> npt.NDArray[np.int64]:
    """Returns the outputs that stay."""
    axis = output_axis(index.graph, affine.node.index)
    return _kept(index.slices[affine.weight], axis, affine.n_outputs, mask)


def kept_columns(affine: Affine, index: GroupIndex, mask: Mask) -> npt.NDArray[np.int64]:
    """Returns the columns of the weight matrix that stay: those of the kept inputs, all taps of each."""
    graph = index.graph
    weight = graph.operand(affine.weight)
    assert weight is not None
    axis = 1 - output_axis(graph, affine.node.index)
    inputs = _kept(index.slices[affine.weight], axis, weight.shape[axis], mask)
    return (inputs[:, None] * affine.taps + np.arange(affine.taps)).reshape(-1)


def _kept(axes: Mapping[int, npt.NDArray[np.int64]], axis: int, n: int, mask: Mask) -> npt.NDArray[np.int64]:
    return kept_positions(axes[axis], mask) if axis in axes else np.arange(n)


@dataclass(frozen=True, slots=True)
class Positions:
    """Which output positions of which images are looked at.

    Attributes:
        images: Shape `(n_rows,)`.
        places: One array per spatial axis, shape `(n_rows,)`.
    """

    images: npt.NDArray[np.int64]
    places: tuple[npt.NDArray[np.int64], ...]


def draw_positions(out_shape: tuple[int, ...], op: str, n_rows: int, rng: np.random.Generator) -> Positions:
    """Returns at most `n_rows` positions, the same number in every image, without repetition within one.

    Args:
        out_shape: Shape of the operator's output for these images.
        op: ``Conv`` slides over the axes after the second; the others over all but the first and the last.
        n_rows: How many positions to draw over all images.
        rng: Source of the draw.
    """
    spatial = out_shape[2:] if op == "Conv" else out_shape[1:-1]
    n_images, n_places = out_shape[0], math.prod(spatial)
    each = min(n_places, max(1, n_rows // max(n_images, 1)))
    if each == n_places:
        flat = np.tile(np.arange(n_places), (n_images, 1))
    else:
        flat = rng.random((n_images, n_places)).argpartition(each - 1, axis=1)[:, :each]
    images = np.repeat(np.arange(n_images), each)
    places = np.unravel_index(flat.reshape(-1), spatial) if spatial else ()
    return Positions(images, tuple(np.asarray(p) for p in places))


def output_shape(node: Node, taps_shape: tuple[int, ...], x: Array) -> tuple[int, ...]:
    """Returns the shape of an operator's output for an input as it arrives, as `draw_positions` takes it.

    Args:
        node: The operator.
        taps_shape: Window of a convolution, e.g. `(3, 3)`; empty otherwise.
        x: Its input; the channels of the shape that is returned are those of the input.
    """
    if node.op != "Conv":
        return x.shape
    rank = len(taps_shape)
    strides = node.attributes.get("strides") or [1] * rank
    dilations = node.attributes.get("dilations") or [1] * rank
    begins, ends = conv_pads(node, x.shape[2:], taps_shape)
    places = (
        (n + begin + end - (k - 1) * d - 1) // s + 1
        for n, begin, end, k, d, s in zip(x.shape[2:], begins, ends, taps_shape, dilations, strides, strict=True)
    )
    return (*x.shape[:2], *places)


def input_rows(node: Node, taps_shape: tuple[int, ...], x: Array, at: Positions) -> Rows:
    """Returns the input patches at positions, shape `(n_rows, n_inputs * taps)`, float32.

    Args:
        node: The operator.
        taps_shape: Window of a convolution, e.g. `(3, 3)`; empty otherwise.
        x: Its input, `(n, n_inputs, ...)` for Conv, `(n, ..., n_inputs)` otherwise.
        at: The positions.
    """
    if node.op != "Conv":
        return np.asarray(x[(at.images, *at.places)], dtype=np.float32).reshape(len(at.images), -1)
    rank = len(taps_shape)
    strides = node.attributes.get("strides") or [1] * rank
    dilations = node.attributes.get("dilations") or [1] * rank
    begins, ends = conv_pads(node, x.shape[2:], taps_shape)
    padded = np.pad(x, [(0, 0), (0, 0), *zip(begins, ends, strict=True)])
    reach = tuple((k - 1) * d + 1 for k, d in zip(taps_shape, dilations, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, 2 + rank)))
    taps = tuple(slice(None, None, d) for d in dilations)
    starts = tuple(place * s for place, s in zip(at.places, strides, strict=True))
    windows = windows[(slice(None), slice(None), *[slice(None)] * rank, *taps)]
    picked = windows[(at.images, slice(None), *starts)]
    return np.asarray(picked, dtype=np.float32).reshape(len(at.images), -1)


def output_rows(node: Node, y: Array, at: Positions) -> Rows:
    """Returns the outputs at positions, shape `(n_rows, n_outputs)`, float32."""
    where: Any = (at.images, slice(None), *at.places) if node.op == "Conv" else (at.images, *at.places)
    return np.asarray(y[where], dtype=np.float32)


def conv_pads(node: Node, size: tuple[int, ...], taps: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Returns the padding before and after every spatial axis of a convolution."""
    rank = len(taps)
    mode = node.attributes.get("auto_pad", "NOTSET")
    if mode == "VALID":
        return [0] * rank, [0] * rank
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        strides = node.attributes.get("strides") or [1] * rank
        dilations = node.attributes.get("dilations") or [1] * rank
        total = [
            max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n)
            for n, s, k, d in zip(size, strides, taps, dilations, strict=True)
        ]
        less = [t // 2 for t in total]
        more = [t - h for t, h in zip(total, less, strict=True)]
        return (less, more) if mode == "SAME_UPPER" else (more, less)
    pads = node.attributes.get("pads") or [0] * 2 * rank
    return list(pads[:rank]), list(pads[rank:])
