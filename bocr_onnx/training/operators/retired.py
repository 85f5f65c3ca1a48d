"""Experiments that ONNX gave up and ONNX Runtime still runs; Core ML's converter wrote them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from bocr_onnx.graph import Node
from bocr_onnx.training.operators.registry import Context, Inputs, need, operator


@operator("Affine")
def affine(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns `alpha * x + beta`."""
    alpha, beta = _factors(node)
    return alpha * need(inputs, 0) + beta


@operator("ParametricSoftplus")
def parametric_softplus(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns `alpha * log(1 + exp(beta * x))`."""
    alpha, beta = _factors(node)
    return alpha * functional.softplus(beta * need(inputs, 0))


@operator("ScaledTanh")
def scaled_tanh(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns `alpha * tanh(beta * x)`."""
    alpha, beta = _factors(node)
    return alpha * torch.tanh(beta * need(inputs, 0))


@operator("ImageScaler")
def image_scaler(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns `scale * x + bias`, the bias one of each channel; shape `(N, C, H, W)`."""
    x, scale = need(inputs, 0), float(node.attributes.get("scale", 1.0))
    return scale * x + x.new_tensor(node.attributes["bias"])[:, None, None]


@operator("Crop")
def crop(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns what is left of height and width: without the border, or as many pixels from its corner on."""
    x = need(inputs, 0)
    left, top, right, bottom = node.attributes["border"]
    height, width = node.attributes.get("scale") or (x.shape[2] - top - bottom, x.shape[3] - left - right)
    return x[:, :, top : top + height, left : left + width]


def _factors(node: Node) -> tuple[float, float]:
    """Returns alpha and beta; ONNX Runtime demands both but of Affine, which does nothing by default."""
    return float(node.attributes.get("alpha", 1.0)), float(node.attributes.get("beta", 0.0))
