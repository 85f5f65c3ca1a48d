"""Matrix products with a constant consume the labels of the inner axis and emit fresh ones.

Y = alpha * A' B' + beta * C        Gemm: B' is cut along its rows with A and along its columns with Y
Y[..., n] = sum_k A[..., k] B[k, n]   MatMul with a constant matrix on the right
"""

from __future__ import annotations

from bocr_onnx.graph import Node
from bocr_onnx.groups.labels import Labeller
from bocr_onnx.groups.rules.elementwise import follow_broadcast
from bocr_onnx.groups.rules.registry import rule


@rule("Gemm")
def gemm(node: Node, at: Labeller) -> None:
    """Carries labels through Gemm."""
    weight = at.constant(node.input(1))
    bias = node.input(2)
    if weight is None or (bias and at.constant(bias) is None):
        at.freeze_inputs(node, "both factors are computed")
        return
    inner, outer = (1, 0) if node.attributes.get("transB", 0) else (0, 1)
    rows, columns = (1, 0) if node.attributes.get("transA", 0) else (0, 1)
    x = at.read(node.inputs[0])
    if columns in x:
        at.cut((node.index, 1), inner, x[columns])
    if rows in x:
        at.freeze(node, x[rows], "the channels lie on the rows of a matrix product")
    out = at.fresh(weight.shape[outer])
    at.cut((node.index, 1), outer, out)
    if bias:
        follow_broadcast(node, at, 2, {1: out}, 2)
    at.emit(node.outputs[0], {1: out})


@rule("MatMul")
def matmul(node: Node, at: Labeller) -> None:
    """Carries labels through MatMul with a constant matrix on the right."""
    weight = at.constant(node.input(1))
    shape = at.shape(node.inputs[0])
    if weight is None or weight.ndim != 2 or shape is None or len(shape) < 2:
        at.freeze_inputs(node, "the right factor is not a constant matrix")
        return
    x = at.read(node.inputs[0])
    last = len(shape) - 1
    if last in x:
        at.cut((node.index, 1), 0, x[last])
    out = at.fresh(weight.shape[1])
    at.cut((node.index, 1), 1, out)
    at.emit(node.outputs[0], {axis: labels for axis, labels in x.items() if axis != last} | {last: out})
