"""Which axis is the batch: the number of samples in one run, decided once for everything that counts per sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bocr_onnx.graph.operators import RECURRENT

if TYPE_CHECKING:
    from bocr_onnx.graph.model import ModelGraph, Node

_CONVOLUTIONS = frozenset({"Conv", "ConvInteger", "ConvTranspose", "QLinearConv"})


def samples_per_run(graph: ModelGraph) -> int:
    """Returns the number of samples in one run at the concrete shapes; 1 where no axis is surely a batch.

    The size n of the first axis of the first input is the batch where nothing contradicts and something supports it:

    - every input of rank 2 or more and every output begins with n;
    - every convolution reads a multiple of n samples (its first axis is the batch by definition), and no recurrent
      operator takes n for time;
    - the file leaves that axis open, or a convolution is there, or the input has rank 2 and no two computed tensors
      are multiplied, which would mix its rows. So a sequence (T, 1, C) or an image (3, H, W) is one sample.
    """
    shape = graph.shapes.get(graph.inputs[0], ()) if graph.inputs else ()
    n = shape[0] if len(shape) > 1 else 1
    if n <= 1 or not _begin_with(graph, n) or any(_contradicts(graph, node, n) for node in graph.nodes):
        return 1
    return n if graph.batch_is_symbolic() or _is_supported(graph, len(shape)) else 1


def _begin_with(graph: ModelGraph, n: int) -> bool:
    """Returns whether all inputs of rank 2 or more and all outputs begin with n."""
    inputs = [graph.shapes.get(name) for name in graph.inputs]
    outputs = [graph.shapes.get(name) for name in graph.outputs]
    if any(shape is None for shape in (*inputs, *outputs)):
        return False
    fed = [shape for shape in inputs if shape is not None and len(shape) > 1]
    return all(shape is not None and shape[:1] == (n,) for shape in (*fed, *outputs))


def _contradicts(graph: ModelGraph, node: Node, n: int) -> bool:
    if node.domain or not node.inputs:
        return False
    first = graph.shapes.get(node.inputs[0], ())[:1]
    if node.op in RECURRENT:
        return not node.attributes.get("layout", 0) and first == (n,)
    return node.op in _CONVOLUTIONS and node.inputs[0] not in graph.constants and (not first or first[0] % n != 0)


def _is_supported(graph: ModelGraph, rank: int) -> bool:
    if any(node.op in _CONVOLUTIONS and node.inputs[0] not in graph.constants for node in graph.nodes):
        return True
    mixes = any(
        node.op in ("MatMul", "Gemm", "Einsum") and sum(name not in graph.constants for name in node.inputs[:2]) > 1
        for node in graph.nodes
    )
    return rank == 2 and not mixes
