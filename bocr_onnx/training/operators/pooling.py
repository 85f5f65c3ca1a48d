"""Pooling over sliding windows and over all spatial axes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from bocr_onnx.graph import Node
from bocr_onnx.training.operators.registry import Context, Inputs, need, operator
from bocr_onnx.training.operators.window import Window, pad_spatial, spatial_sum, window

MAX_POOL = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
AVERAGE_POOL = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)


@operator("MaxPool")
def max_pool(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the largest element of every window; padding counts as minus infinity."""
    x, at = _window(node, inputs, ctx)
    pool = MAX_POOL[len(at.kernel) - 1]
    if at.is_symmetric and all(2 * b <= k for b, k in zip(at.begin, at.kernel, strict=True)):
        return pool(x, at.kernel, at.strides, at.begin, at.dilations)
    x = pad_spatial(x, at.begin, _reach(at), -torch.inf)
    return pool(x, at.kernel, at.strides, 0, at.dilations)


@operator("AveragePool")
def average_pool(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the mean of every window, over what lies in the input (and the padding, where asked for)."""
    x, at = _window(node, inputs, ctx)
    if not any((*at.begin, *at.end, *at.overhang)) and set(at.dilations) == {1}:
        return AVERAGE_POOL[len(at.kernel) - 1](x, at.kernel, at.strides)
    inside = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype, device=x.device)
    if node.attributes.get("count_include_pad", 0):
        counted = pad_spatial(pad_spatial(inside, at.begin, at.end, 1.0), (0,) * len(at.kernel), at.overhang)
    else:
        counted = pad_spatial(inside, at.begin, _reach(at))
    return spatial_sum(pad_spatial(x, at.begin, _reach(at)), at) / spatial_sum(counted, at)


@operator("GlobalAveragePool")
def global_average_pool(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns `(N, C, 1, ...)`, the mean over the spatial axes."""
    x = need(inputs, 0)
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


@operator("GlobalMaxPool")
def global_max_pool(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns `(N, C, 1, ...)`, the maximum over the spatial axes."""
    x = need(inputs, 0)
    return x.amax(tuple(range(2, x.dim())), keepdim=True)


def _window(node: Node, inputs: Inputs, ctx: Context) -> tuple[Tensor, Window]:
    x = need(inputs, 0)
    if not 3 <= x.dim() <= 5:
        ctx.refuse(node, "have one to three spatial axes", x.dim() - 2)
    return x, window(node, x, node.attributes["kernel_shape"])


def _reach(at: Window) -> tuple[int, ...]:
    return tuple(e + o for e, o in zip(at.end, at.overhang, strict=True))
