"""Convolution and its transpose.

Conv:            y = w * x + b, weight (M, C / group, *kernel)
ConvTranspose:   the gradient of Conv by its input, weight (C, M / group, *kernel)
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from bocr_onnx.graph import Node
from bocr_onnx.training.operators.registry import Context, Inputs, given, need, operator
from bocr_onnx.training.operators.window import pad_spatial, window

CONV = (functional.conv1d, functional.conv2d, functional.conv3d)
CONV_TRANSPOSE = (
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
)


@operator("Conv")
def conv(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns `(N, M, *spatial)`."""
    x, weight, bias = need(inputs, 0), need(inputs, 1), given(inputs, 2)
    at = window(node, x, weight.shape[2:])
    padding = at.begin
    if not at.is_symmetric:
        x, padding = pad_spatial(x, at.begin, at.end), (0,) * len(at.kernel)
    rank = _spatial_rank(node, x, ctx)
    return CONV[rank - 1](x, weight, bias, at.strides, padding, at.dilations, _group(node))


@operator("ConvTranspose")
def conv_transpose(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the full transposed convolution, cropped by the pads and grown by the output padding.

    Cropping by hand is one path for symmetric pads, asymmetric ones and a given output shape.
    """
    x, weight, bias = need(inputs, 0), need(inputs, 1), given(inputs, 2)
    rank = _spatial_rank(node, x, ctx)
    strides = tuple(node.attributes.get("strides") or [1] * rank)
    dilations = tuple(node.attributes.get("dilations") or [1] * rank)
    full = CONV_TRANSPOSE[rank - 1](x, weight, None, strides, 0, 0, _group(node), dilations)
    begin, grown = _crop(node, x, full, strides)
    y = pad_spatial(full, [-b for b in begin], grown)
    return y if bias is None else y + bias.reshape(-1, *[1] * rank)


def _crop(node: Node, x: Tensor, full: Tensor, strides: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns how much to cut at the begin and (negative) or add at the end of every spatial axis."""
    rank = len(strides)
    extra = tuple(node.attributes.get("output_padding") or [0] * rank)
    mode = node.attributes.get("auto_pad", "NOTSET")
    shape = node.attributes.get("output_shape")
    if shape is None and mode in ("NOTSET", "VALID"):
        pads = tuple(node.attributes.get("pads") or [0] * (2 * rank)) if mode == "NOTSET" else (0,) * (2 * rank)
        return pads[:rank], tuple(o - e for o, e in zip(extra, pads[rank:], strict=True))
    wanted = shape[-rank:] if shape else [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
    totals = [n + o - w for n, o, w in zip(full.shape[2:], extra, wanted, strict=True)]
    begin = tuple(t // 2 if mode == "SAME_UPPER" else t - t // 2 for t in totals)
    return begin, tuple(o - (t - b) for o, t, b in zip(extra, totals, begin, strict=True))


def _group(node: Node) -> int:
    return int(node.attributes.get("group", 1))


def _spatial_rank(node: Node, x: Tensor, ctx: Context) -> int:
    if not 3 <= x.dim() <= 5:
        ctx.refuse(node, "have one to three spatial axes", x.dim() - 2)
    return x.dim() - 2
