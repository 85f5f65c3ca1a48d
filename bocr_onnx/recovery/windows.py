"""What a weighted operator reads at some positions of its output, as the rows of a matrix.

A transposed convolution reads as a convolution of stride one does whose input has zeros between its entries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bocr_onnx.graph import Array, Node

CONVOLUTIONS = ("Conv", "ConvTranspose")

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Positions:
    """Which output positions of which images are looked at.

    Attributes:
        images: Shape `(n_rows,)`.
        places: One array per spatial axis, shape `(n_rows,)`.
    """

    images: npt.NDArray[np.int64]
    places: tuple[npt.NDArray[np.int64], ...]


def draw_positions(out_shape: tuple[int, ...], op: str, n_rows: int, rng: np.random.Generator) -> Positions:
    """Returns at most `n_rows` positions, the same number in every image, without repetition within one.

    Args:
        out_shape: Shape of the operator's output for these images.
        op: Convolutions slide over the axes after the second; the others over all but the first and the last.
        n_rows: How many positions to draw over all images.
        rng: Source of the draw.
    """
    spatial = out_shape[2:] if op in CONVOLUTIONS else out_shape[1:-1]
    n_images, n_places = out_shape[0], math.prod(spatial)
    each = min(n_places, max(1, n_rows // max(n_images, 1)))
    if each == n_places:
        flat = np.tile(np.arange(n_places), (n_images, 1))
    else:
        flat = rng.random((n_images, n_places)).argpartition(each - 1, axis=1)[:, :each]
    images = np.repeat(np.arange(n_images), each)
    places = np.unravel_index(flat.reshape(-1), spatial) if spatial else ()
    return Positions(images, tuple(np.asarray(p) for p in places))


def output_shape(node: Node, taps_shape: tuple[int, ...], x: Array) -> tuple[int, ...]:
    """Returns the shape of an operator's output for an input as it arrives, as `draw_positions` takes it.

    Args:
        node: The operator.
        taps_shape: Window of a convolution, e.g. `(3, 3)`; empty otherwise.
        x: Its input; the channels of the shape that is returned are those of the input.
    """
    if node.op not in CONVOLUTIONS:
        return x.shape
    strides, dilations = _steps(node, len(taps_shape))
    if node.op == "ConvTranspose":
        x, strides = _spread(node, taps_shape, x[:1, :1]), [1] * len(taps_shape)
        begins, ends = [0] * len(taps_shape), [0] * len(taps_shape)
    else:
        begins, ends = conv_pads(node, x.shape[2:], taps_shape)
    places = (
        (n + begin + end - (k - 1) * d - 1) // s + 1
        for n, begin, end, k, d, s in zip(x.shape[2:], begins, ends, taps_shape, dilations, strides, strict=True)
    )
    return (*x.shape[:2], *places)


def _steps(node: Node, rank: int) -> tuple[list[int], list[int]]:
    """Returns strides and dilations."""
    return node.attributes.get("strides") or [1] * rank, node.attributes.get("dilations") or [1] * rank


def _spread(node: Node, taps_shape: tuple[int, ...], x: Array) -> Array:
    """Returns the input of a transposed convolution as the convolution of stride one reads it that does the same.

    An output is o = i * stride + k * dilation - pad; so zeros stand between the inputs, and around them as many that
    the first window, turned round, ends with what the first output reads.
    """
    rank = len(taps_shape)
    strides, dilations = _steps(node, rank)
    pads = node.attributes.get("pads") or [0] * 2 * rank
    extra = node.attributes.get("output_padding") or [0] * rank
    if node.attributes.get("auto_pad", "NOTSET") == "VALID":
        pads = [0] * 2 * rank
    reach = [(k - 1) * d for k, d in zip(taps_shape, dilations, strict=True)]
    around = [(r - pads[i], r + extra[i] - pads[rank + i]) for i, r in enumerate(reach)]
    spread = [(n - 1) * s + 1 for n, s in zip(x.shape[2:], strides, strict=True)]
    made = np.zeros(
        (*x.shape[:2], *(n + max(a, 0) + max(b, 0) for n, (a, b) in zip(spread, around, strict=True))), x.dtype
    )
    where: Any = tuple(slice(max(a, 0), max(a, 0) + n, s) for n, (a, _), s in zip(spread, around, strides, strict=True))
    made[(slice(None), slice(None), *where)] = x
    inside = tuple(slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(made.shape[2:], around, strict=True))
    return made[(slice(None), slice(None), *inside)]


def input_rows(node: Node, taps_shape: tuple[int, ...], x: Array, at: Positions) -> Rows:
    """Returns the input patches at positions, shape `(n_rows, n_inputs * taps)`, float32.

    Args:
        node: The operator.
        taps_shape: Window of a convolution, e.g. `(3, 3)`; empty otherwise.
        x: Its input, `(n, n_inputs, ...)` for convolutions, `(n, ..., n_inputs)` otherwise.
        at: The positions.
    """
    if node.op not in CONVOLUTIONS:
        return np.asarray(x[(at.images, *at.places)], dtype=np.float32).reshape(len(at.images), -1)
    rank = len(taps_shape)
    strides, dilations = _steps(node, rank)
    if node.op == "ConvTranspose":
        padded, strides = _spread(node, taps_shape, x), [1] * rank
    else:
        begins, ends = conv_pads(node, x.shape[2:], taps_shape)
        padded = np.pad(x, [(0, 0), (0, 0), *zip(begins, ends, strict=True)])
    reach = tuple((k - 1) * d + 1 for k, d in zip(taps_shape, dilations, strict=True))
    windows: Any = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, 2 + rank)))
    taps = tuple(slice(None, None, d) for d in dilations)
    starts = tuple(place * s for place, s in zip(at.places, strides, strict=True))
    windows = windows[(slice(None), slice(None), *[slice(None)] * rank, *taps)]
    picked = windows[(at.images, slice(None), *starts)]
    return np.asarray(picked, dtype=np.float32).reshape(len(at.images), -1)


def output_rows(node: Node, y: Array, at: Positions) -> Rows:
    """Returns the outputs at positions, shape `(n_rows, n_outputs)`, float32."""
    where: Any = (at.images, slice(None), *at.places) if node.op in CONVOLUTIONS else (at.images, *at.places)
    return np.asarray(y[where], dtype=np.float32)


def conv_pads(node: Node, size: tuple[int, ...], taps: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Returns the padding before and after every spatial axis of a convolution."""
    rank = len(taps)
    mode = node.attributes.get("auto_pad", "NOTSET")
    if mode == "VALID":
        return [0] * rank, [0] * rank
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        strides, dilations = _steps(node, rank)
        total = [
            max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n)
            for n, s, k, d in zip(size, strides, taps, dilations, strict=True)
        ]
        less = [t // 2 for t in total]
        more = [t - h for t, h in zip(total, less, strict=True)]
        return (less, more) if mode == "SAME_UPPER" else (more, less)
    pads = node.attributes.get("pads") or [0] * 2 * rank
    return list(pads[:rank]), list(pads[rank:])
