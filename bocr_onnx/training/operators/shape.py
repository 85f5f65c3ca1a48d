"""Shape arithmetic: integers about tensors. They stay on the host, whatever device computes."""

from __future__ import annotations

import torch
from torch import Tensor

from bocr_onnx.graph import Node
from bocr_onnx.training.operators.registry import Context, Inputs, need, operator, to_tensor


@operator("Shape")
def shape(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the shape, shape `(rank,)` int64, or the part of it that the attributes ask for."""
    sizes = list(need(inputs, 0).shape)
    return torch.tensor(
        sizes[node.attributes.get("start", 0) : node.attributes.get("end", len(sizes))], dtype=torch.int64
    )


@operator("ConstantOfShape")
def constant_of_shape(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns a tensor filled with one value."""
    value = node.attributes.get("value")
    sizes = [int(n) for n in need(inputs, 0).tolist()]
    if value is None:
        return torch.zeros(sizes)
    fill = to_tensor(value)
    return torch.full(sizes, fill.item(), dtype=fill.dtype)


@operator("Range")
def arange(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns `start, start + delta, ...` up to, and without, the limit."""
    start, limit, delta = (need(inputs, i) for i in range(3))
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)
