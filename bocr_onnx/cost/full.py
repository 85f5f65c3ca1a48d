"""Multiply-accumulates of operators whose channels are not followed: nothing of them is cut, all of them are paid for.

Conv, Gemm, MatMul    entries of the output, times what is summed over for each
ConvTranspose         entries of the input, times the weights that each meets
LSTM, GRU, RNN        steps and samples, times W and R (of both directions)
"""

from __future__ import annotations

import math

from bocr_onnx.graph import FLOATING, RECURRENT, ModelGraph, Node, branches, full_name, stored_in, weight_positions

CONVOLUTIONS = frozenset({"Conv", "ConvInteger", "QLinearConv", "DeformConv"})
FUSED = {
    "com.microsoft.FusedConv": "Conv",
    "com.microsoft.FusedGemm": "Gemm",
    "com.microsoft.FusedMatMul": "MatMul",
    "com.microsoft.QGemm": "Gemm",
    "com.microsoft.nchwc.Conv": "Conv",
}
"""Operators of ONNX Runtime's own domains that compute as a standard one does."""


def full_macs(graph: ModelGraph, node: Node) -> int:
    """Returns the multiply-accumulates of one run of a node at the concrete shapes.

    Args:
        graph: The model.
        node: An operator of it.

    Returns:
        Zero where the operator costs none, or where the shapes that would tell are unknown.
    """
    if node.op == "If" and not node.domain:
        return max((sum(full_macs(b, inner) for inner in b.nodes) for b in branches(graph, node)), default=0)
    op = FUSED.get(full_name(node), "") if node.domain else node.op
    out = next((graph.shapes[name] for name in node.outputs if name in graph.shapes), None)
    x = graph.shapes.get(node.input(0))
    if out is None or x is None:
        return 0
    if op == "Einsum":
        return _einsum(graph, node)
    if op in RECURRENT:
        weights = [graph.shapes.get(node.input(i), ()) for i in (1, 2)]
        return x[0] * x[1] * sum(math.prod(shape) for shape in weights if shape)
    weight = _weight_shape(graph, node, op)
    if not weight:
        return 0
    if op in CONVOLUTIONS:
        return math.prod(out) * math.prod(weight[1:])
    if op == "ConvTranspose":
        return math.prod(x) * math.prod(weight[1:])
    if op in ("Gemm", "MatMul", "MatMulInteger", "QLinearMatMul"):
        return math.prod(out) * (x[-2] if node.attributes.get("transA", 0) else x[-1])
    return 0


def _weight_shape(graph: ModelGraph, node: Node, op: str) -> tuple[int, ...]:
    position = next(iter(weight_positions(node)[-1:]), 1)
    return graph.shapes.get(node.input(position), ())


def _einsum(graph: ModelGraph, node: Node) -> int:
    """Returns the product of the sizes of all letters."""
    left = str(node.attributes.get("equation", "")).replace(" ", "").partition("->")[0]
    sizes: dict[str, int] = {}
    for name, letters in zip(node.inputs, left.split(","), strict=False):
        shape = graph.shapes.get(name, ())
        if "..." in letters or len(letters) != len(shape):
            return 0
        for letter, size in zip(letters, shape, strict=True):
            sizes[letter] = max(sizes.get(letter, 1), size)
    return math.prod(sizes.values())


def hidden_params(graph: ModelGraph) -> int:
    """Returns how many floating-point constants subgraphs hold, or are alone in reading; none of them is cut."""
    captured = {name for node in graph.nodes for name in node.captures if name not in graph.readers}
    outer = sum(int(a.size) for name in captured if (a := graph.constant(name)) is not None and a.dtype.kind == "f")
    attributes = [attribute for node in graph.proto.graph.node for attribute in node.attribute]
    inner = [t for attribute in attributes for t in stored_in(attribute) if t.data_type in FLOATING]
    return outer + sum(int(math.prod(t.dims)) for t in inner)
