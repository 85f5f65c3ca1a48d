"""Reductions over axes: an attribute in old opsets, an input in new ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from bocr_onnx.graph import Node
from bocr_onnx.training.operators.registry import Context, Function, Inputs, ints, need, operator

REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "ReduceL1": partial(torch.linalg.vector_norm, ord=1),
    "ReduceL2": torch.linalg.vector_norm,
    "ReduceMean": torch.mean,
    "ReduceSum": torch.sum,
    "ReduceMax": torch.amax,
    "ReduceMin": torch.amin,
}


def _reduction(function: Callable[..., Tensor]) -> Function:
    def reduce(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
        x = need(inputs, 0)
        axes = ints(node, "axes", inputs, 1)
        if not axes:
            if node.attributes.get("noop_with_empty_axes", 0):
                return function(x.unsqueeze(0), dim=[0])
            axes = list(range(x.dim()))
        return function(x, dim=axes, keepdim=bool(node.attributes.get("keepdims", 1)))

    return reduce


for _op, _function in REDUCTIONS.items():
    operator(_op)(_reduction(_function))
