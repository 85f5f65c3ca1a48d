"""Matrix products.

Gemm:   y = alpha op(A) op(B) + beta C, op(.) the transpose where asked for
MatMul: numpy's matmul
Einsum: the sum over the letters that the output leaves out
"""

from __future__ import annotations

import torch
from torch import Tensor

from bocr_onnx.graph import Node
from bocr_onnx.training.operators.registry import Context, Inputs, given, need, operator, together


@operator("Gemm", since=7)
def gemm(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns `(M, N)`."""
    a, b, c = need(inputs, 0), need(inputs, 1), given(inputs, 2)
    a = a.T if node.attributes.get("transA", 0) else a
    b = b.T if node.attributes.get("transB", 0) else b
    alpha = node.attributes.get("alpha", 1.0)
    if c is None:
        product = a @ b
        return product if alpha == 1.0 else alpha * product
    return torch.addmm(c, a, b, beta=node.attributes.get("beta", 1.0), alpha=alpha)


@operator("MatMul")
def matmul(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the product of the last two axes, broadcast over the others."""
    a, b = together(inputs)
    return a @ b


@operator("Einsum")
def einsum(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the products of the inputs' elements, summed as the equation says."""
    return torch.einsum(node.attributes["equation"], *together(inputs))
