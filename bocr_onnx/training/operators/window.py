"""Sliding windows along the spatial axes: what convolution and pooling share.

Notation, per axis: n input size, k kernel, s stride, d dilation, (b, e) padding at begin and end.

    span = (k - 1) d + 1                  what one window covers
    n_out = floor((n + b + e - span) / s) + 1
    SAME: n_out = ceil(n / s), so b + e = max((n_out - 1) s + span - n, 0);
    the odd one goes to the end (SAME_UPPER) or to the begin (SAME_LOWER)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from bocr_onnx.graph import Node


@dataclass(frozen=True, slots=True)
class Window:
    """One window per spatial axis.

    Attributes:
        kernel: Size.
        strides: Step.
        dilations: Distance between two taps.
        begin: Padding before the first element.
        end: Padding after the last element.
        overhang: Elements after `end` that the last window of ``ceil_mode`` reaches.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    overhang: tuple[int, ...]

    @property
    def is_symmetric(self) -> bool:
        """Returns whether torch's own padding does, so that nothing has to be padded by hand."""
        return self.begin == self.end and min(self.begin) >= 0 and not any(self.overhang)


def window(node: Node, x: Tensor, kernel: Sequence[int]) -> Window:
    """Returns the window of a node that slides over a tensor.

    Args:
        node: Its attributes are read.
        x: Shape `(N, C, *spatial)`.
        kernel: Size per spatial axis.
    """
    sizes = tuple(int(n) for n in x.shape[2:])
    strides = _per_axis(node, "strides", len(sizes))
    dilations = _per_axis(node, "dilations", len(sizes))
    spans = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    begin, end = _pads(node, sizes, spans, strides)
    overhang = (0,) * len(sizes)
    if node.attributes.get("ceil_mode", 0):
        overhang = tuple(
            _overhang(n, b, e, span, s) for n, b, e, span, s in zip(sizes, begin, end, spans, strides, strict=True)
        )
    return Window(tuple(kernel), strides, dilations, begin, end, overhang)


def _per_axis(node: Node, name: str, rank: int) -> tuple[int, ...]:
    return tuple(node.attributes.get(name) or [1] * rank)


def _pads(
    node: Node, sizes: Sequence[int], spans: Sequence[int], strides: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    rank = len(sizes)
    mode = node.attributes.get("auto_pad", "NOTSET")
    if mode == "VALID":
        return (0,) * rank, (0,) * rank
    if mode == "NOTSET":
        pads = tuple(node.attributes.get("pads") or [0] * (2 * rank))
        return pads[:rank], pads[rank:]
    totals = [max((-(-n // s) - 1) * s + span - n, 0) for n, span, s in zip(sizes, spans, strides, strict=True)]
    small, large = tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
    return (small, large) if mode == "SAME_UPPER" else (large, small)


def _overhang(n: int, b: int, e: int, span: int, s: int) -> int:
    """Returns how far the last window reaches; one that would start after the input and `b` is dropped."""
    n_out = -(-(n + b + e - span) // s) + 1
    if (n_out - 1) * s >= n + b:
        n_out -= 1
    return max((n_out - 1) * s + span - (n + b + e), 0)


def pad_spatial(x: Tensor, begin: Sequence[int], end: Sequence[int], value: float = 0.0) -> Tensor:
    """Returns `(N, C, *spatial)` padded (cropped where negative) along the spatial axes."""
    flat = [p for pair in reversed(list(zip(begin, end, strict=True))) for p in pair]
    return functional.pad(x, flat, value=value) if any(flat) else x


def spatial_sum(x: Tensor, at: Window) -> Tensor:
    """Returns the sum over every window of a padded tensor of shape `(N, C, *spatial)`."""
    ones = torch.ones((x.shape[1], 1, *at.kernel), dtype=x.dtype, device=x.device)
    convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[len(at.kernel) - 1]
    return convolve(x, ones, None, at.strides, 0, at.dilations, x.shape[1])
