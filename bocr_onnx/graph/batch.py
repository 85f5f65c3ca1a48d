"""Which axis is the batch: the number of samples in one run, decided once for everything that counts per sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bocr_onnx.graph.operators import RECURRENT

if TYPE_CHECKING:
    from bocr_onnx.graph.model import ModelGraph, Node

_CONVOLUTIONS = frozenset({"Conv", "ConvInteger", "ConvTranspose", "QLinearConv"})
_PRODUCTS = frozenset({"MatMul", "Gemm", "Einsum"})
_ALONG = {"ArgMax": 0, "ArgMin": 0, "Hardmax": -1, "LogSoftmax": -1, "LpNormalization": -1, "Softmax": -1, "TopK": -1}
"""Operators that compare or normalize along one axis -> the axis where none is given."""


def samples_per_run(graph: ModelGraph) -> int:
    """Returns the number of samples in one run at the concrete shapes; 1 where no axis is surely a batch.

    The size n of the first axis of the first input that has two axes is the batch where nothing contradicts and
    something supports it:

    - every input of rank 2 or more and every output begins with n, and what the file calls these axes is the same;
    - every convolution reads a multiple of n samples (its first axis is the batch by definition), no recurrent operator
      takes n for time, and no operator sums over n entries by a constant, reduces, normalizes or compares along a first
      axis of n;
    - the file leaves that axis open, or a convolution is there, or the input has rank 2 and no two computed tensors
      are multiplied, which would mix its rows. So a sequence (T, 1, C) or an image (3, H, W) is one sample.
    """
    shapes = [graph.shapes.get(name, ()) for name in graph.inputs]
    shape: tuple[int, ...] = next((shape for shape in shapes if len(shape) > 1), ())
    n = shape[0] if shape else 1
    names = _open_names(graph)
    if n <= 1 or len(set(names)) > 1 or not _begin_with(graph, n):
        return 1
    if any(_contradicts(graph, node, n) for node in graph.nodes):
        return 1
    return n if all(names) or _is_supported(graph, len(shape)) else 1


def _open_names(graph: ModelGraph) -> list[str]:
    """Returns what the file calls the first axis of every input of two axes or more; empty where it has a size."""
    fed = [info for info in graph.proto.graph.input if info.name in graph.inputs]
    first = [info.type.tensor_type.shape.dim[0] for info in fed if len(info.type.tensor_type.shape.dim) > 1]
    return ["" if dim.HasField("dim_value") else dim.dim_param or "?" for dim in first]


def _begin_with(graph: ModelGraph, n: int) -> bool:
    """Returns whether all inputs of rank 2 or more and all outputs begin with n."""
    inputs = [graph.shapes.get(name) for name in graph.inputs]
    outputs = [graph.shapes.get(name) for name in graph.outputs]
    if any(shape is None for shape in (*inputs, *outputs)):
        return False
    fed = [shape for shape in inputs if shape is not None and len(shape) > 1]
    return all(shape is not None and shape[:1] == (n,) for shape in (*fed, *outputs))


def _contradicts(graph: ModelGraph, node: Node, n: int) -> bool:
    if node.domain or not node.inputs or node.outputs[0] in graph.constants:
        return False
    shape = graph.shapes.get(node.inputs[0], ())
    if node.op in RECURRENT:
        return not node.attributes.get("layout", 0) and shape[:1] == (n,)
    if node.op in _CONVOLUTIONS:
        return node.inputs[0] not in graph.constants and (not shape or shape[0] % n != 0)
    if node.op in _PRODUCTS:
        return _sums_over(graph, node, n)
    return shape[:1] == (n,) and 0 in _mixed_axes(graph, node, len(shape))


def _sums_over(graph: ModelGraph, node: Node, n: int) -> bool:
    """Returns whether a constant sums over an axis of n entries that may be the first of a computed factor."""
    first, second = (graph.shapes.get(name, ()) for name in node.inputs[:2])
    if node.op == "Einsum":
        left, _, right = str(node.attributes.get("equation", "")).replace(" ", "").partition("->")
        pairs = [
            (letter, size)
            for letters, name in zip(left.split(","), node.inputs, strict=False)
            if name not in graph.constants
            for letter, size in zip(letters[:1], graph.shapes.get(name, ()), strict=False)
        ]
        return any(size == n and letter not in right for letter, size in pairs)
    if node.attributes.get("transA", 0) and node.inputs[0] not in graph.constants:
        return first[:1] == (n,)
    inner = second[-2:-1] if not node.attributes.get("transB", 0) else second[-1:]
    return node.inputs[0] in graph.constants and node.inputs[1] not in graph.constants and inner == (n,)


def _mixed_axes(graph: ModelGraph, node: Node, rank: int) -> set[int]:
    """Returns the axes along which an operator reduces, normalizes, compares or runs."""
    if node.op.startswith("Reduce"):
        axes = node.attributes.get("axes")
        given = graph.constants.get(node.input(1)) if axes is None and node.input(1) else None
        axes = given.reshape(-1).tolist() if given is not None else axes
        everything = [] if node.attributes.get("noop_with_empty_axes", 0) else range(rank)
        return {int(axis) % rank for axis in axes or everything}
    if node.op in _ALONG:
        default = _ALONG[node.op] if node.op != "Softmax" or graph.opset >= 13 else 1
        return {int(node.attributes.get("axis", default)) % rank}
    return set()


def _is_supported(graph: ModelGraph, rank: int) -> bool:
    if any(node.op in _CONVOLUTIONS and node.inputs[0] not in graph.constants for node in graph.nodes):
        return True
    mixes = any(
        node.op in _PRODUCTS and sum(name not in graph.constants for name in node.inputs[:2]) > 1
        for node in graph.nodes
    )
    return rank == 2 and not mixes
