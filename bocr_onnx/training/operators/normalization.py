"""Normalizations and softmax.

y = scale (x - m) / sqrt(v + epsilon) + bias
BatchNormalization:    m, v per channel, over the batch (training) or stored (inference)
InstanceNormalization: m, v per sample and channel
GroupNormalization:    m, v per sample and group of neighbouring channels
LayerNormalization:    m, v over all axes from the given one on; scale and bias per element of them
LRN:                   y = x / (bias + alpha / size * sum of x^2 over the `size` channels around)^beta
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from bocr_onnx.graph import Node
from bocr_onnx.training.operators.registry import Context, Inputs, given, need, operator

SLOWEST_UPDATE = 0.01
"""Share of a batch in the running statistics, at least: files that state momentum 1 would never move them."""


@operator("BatchNormalization", since=6)
def batch_normalization(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the normalized input; under training updates the running statistics in place."""
    x, scale, bias, running_mean, running_var = (need(inputs, i) for i in range(5))
    if not node.attributes.get("spatial", 1) or node.attributes.get("training_mode", 0):
        ctx.refuse(node, "normalize per channel with stored statistics", dict(node.attributes))
    training = ctx.training and x.numel() > x.shape[1]
    share = max(1.0 - node.attributes.get("momentum", 0.9), SLOWEST_UPDATE)
    epsilon = node.attributes.get("epsilon", 1e-5)
    return functional.batch_norm(x, running_mean, running_var, scale, bias, training, share, epsilon)


@operator("InstanceNormalization", since=6)
def instance_normalization(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the input normalized per sample and channel."""
    x, scale, bias = (need(inputs, i) for i in range(3))
    axes = tuple(range(2, x.dim()))
    var, mean = torch.var_mean(x, dim=axes, correction=0, keepdim=True)
    per_channel = (1, -1, *[1] * len(axes))
    normal = (x - mean) * torch.rsqrt(var + node.attributes.get("epsilon", 1e-5))
    return normal * scale.reshape(per_channel) + bias.reshape(per_channel)


@operator("LayerNormalization", since=17)
def layer_normalization(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the input normalized over its last axes."""
    x, scale, bias = need(inputs, 0), need(inputs, 1), given(inputs, 2)
    axis, epsilon = node.attributes.get("axis", -1) % x.dim(), node.attributes.get("epsilon", 1e-5)
    shape = x.shape[axis:]
    if scale.shape == shape and (bias is None or bias.shape == shape):
        return functional.layer_norm(x, shape, scale, bias, epsilon)
    y = functional.layer_norm(x, shape, eps=epsilon) * scale
    return y if bias is None else y + bias


@operator("GroupNormalization", since=21)
def group_normalization(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the input normalized per sample and group; scale and bias per channel."""
    x, scale, bias = (need(inputs, i) for i in range(3))
    return functional.group_norm(x, node.attributes["num_groups"], scale, bias, node.attributes.get("epsilon", 1e-5))


@operator("LRN")
def local_response_normalization(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the input over a power of the mean square around each channel; the ends count as zero padded."""
    x, size = need(inputs, 0), node.attributes["size"]
    if size % 2 == 0:
        ctx.refuse(node, "look at as many channels before as after", size)
    squares = functional.pad(x.square().reshape(x.shape[0], 1, x.shape[1], -1), (0, 0, size // 2, size // 2))
    means = functional.avg_pool2d(squares, (size, 1), stride=1).reshape(x.shape)
    scale = node.attributes.get("bias", 1.0) + node.attributes.get("alpha", 1e-4) * means
    normalized: Tensor = x / torch.pow(scale, node.attributes.get("beta", 0.75))
    return normalized


@operator("Softmax", since=13)
def softmax(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the softmax along one axis."""
    return torch.softmax(need(inputs, 0), node.attributes.get("axis", -1))


@operator("LogSoftmax", since=13)
def log_softmax(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the logarithm of the softmax along one axis."""
    return torch.log_softmax(need(inputs, 0), node.attributes.get("axis", -1))


@operator("Softmax")
def softmax_flat(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the softmax over all axes from the given one on, as before opset 13."""
    x = need(inputs, 0)
    return torch.softmax(_rows(node, x), 1).reshape(x.shape)


@operator("LogSoftmax")
def log_softmax_flat(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the logarithm of the softmax over all axes from the given one on, as before opset 13."""
    x = need(inputs, 0)
    return torch.log_softmax(_rows(node, x), 1).reshape(x.shape)


def _rows(node: Node, x: Tensor) -> Tensor:
    axis = node.attributes.get("axis", 1) % x.dim()
    n_rows = 1
    for size in x.shape[:axis]:
        n_rows *= size
    return x.reshape(n_rows, -1)
