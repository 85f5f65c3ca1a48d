"""Resize and its predecessor Upsample: nearest neighbour and linear, axis by axis.

Notation, per axis: n input size, m output size, s scale, o output index, x the place in the input it reads.

    half_pixel             x = (o + 1/2) / s - 1/2
    pytorch_half_pixel     the same; 0 where m = 1
    half_pixel_symmetric   the same, around the centre of the input
    asymmetric             x = o / s
    align_corners          x = o (n - 1) / (m - 1)
    nearest                y[o] = input[round(x)]
    linear                 y[o] = (1 - f) input[floor x] + f input[floor x + 1],  f = x - floor x

References:
    ONNX operator Resize, opset 19, attribute coordinate_transformation_mode.
"""

from __future__ import annotations

from collections.abc import Callable
from math import floor

import numpy as np
import torch
from torch import Tensor

from bocr_onnx.graph import Array, Node
from bocr_onnx.training.operators.registry import Context, Inputs, given, ints, need, operator

ROUND: dict[str, Callable[[Array], Array]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda x: np.ceil(x - np.float32(0.5)),
    "round_prefer_ceil": lambda x: np.floor(x + np.float32(0.5)),
}


@operator("Resize", since=11)
def resize(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the input resized by scales or to sizes."""
    x = need(inputs, 0)
    axes = [a % x.dim() for a in node.attributes.get("axes") or range(x.dim())]
    if node.attributes.get("antialias", 0):
        ctx.refuse(node, "resize without antialiasing", 1)
    if (policy := node.attributes.get("keep_aspect_ratio_policy", "stretch")) != "stretch":
        ctx.refuse(node, "stretch", policy)
    coordinates = node.attributes.get("coordinate_transformation_mode", "half_pixel")
    rounding = node.attributes.get("nearest_mode", "round_prefer_floor")
    nearest = ROUND[rounding] if _is_nearest(node, ctx) else None
    sizes = ints(node, "sizes", inputs, 3)
    scales = given(inputs, 2)
    for position, axis in enumerate(axes):
        if sizes:
            scale, size = sizes[position] / x.shape[axis], sizes[position]
        else:
            scale = float(scales[position]) if scales is not None else 1.0
            size = floor(x.shape[axis] * scale)
        x = _along(x, axis, _places(node, ctx, coordinates, (x.shape[axis], size, scale)), nearest)
    return x


@operator("Resize", since=10)
@operator("Upsample", since=7)
def upsample(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the input resized as before opset 11: asymmetric; nearest is floor growing, ceil shrinking."""
    x = need(inputs, 0)
    given_scales = given(inputs, 1)
    scales = node.attributes["scales"] if given_scales is None else given_scales.tolist()
    is_nearest = _is_nearest(node, ctx)
    for axis, scale in enumerate(scales):
        places = _places(node, ctx, "asymmetric", (x.shape[axis], floor(x.shape[axis] * scale), scale))
        x = _along(x, axis, places, ROUND["floor" if scale >= 1 else "ceil"] if is_nearest else None)
    return x


def _is_nearest(node: Node, ctx: Context) -> bool:
    mode = node.attributes.get("mode", "nearest")
    if mode not in ("nearest", "linear", "bilinear"):
        ctx.refuse(node, "interpolate nearest or linear", mode)
    return bool(mode == "nearest")


def _places(node: Node, ctx: Context, mode: str, along: tuple[int, int, float]) -> Array:
    """Returns where every output index looks, shape `(m,)` float32; `along` is (n, m, s)."""
    n, m, scale = along
    s = np.float32(scale)
    o = np.arange(m, dtype=np.float32)
    centred = (o + np.float32(0.5)) / s - np.float32(0.5)
    if mode == "asymmetric":
        return o / s
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and m > 1):
        return centred
    if mode == "pytorch_half_pixel" or (mode == "align_corners" and m == 1):
        return np.zeros(m, dtype=np.float32)
    if mode == "align_corners":
        return o * np.float32(n - 1) / np.float32(m - 1)
    if mode == "half_pixel_symmetric":
        return np.float32(n / 2 * (1 - m / (scale * n))) + centred
    return ctx.refuse(node, "use a coordinate mode without a region of interest", mode)


def _along(x: Tensor, axis: int, places: Array, nearest: Callable[[Array], Array] | None) -> Tensor:
    """Returns the tensor read at the places along an axis: rounded, or linearly between two where None."""
    n = x.shape[axis]
    if len(places) == n and np.array_equal(places, np.arange(n)):
        return x
    if nearest is not None:
        return x.index_select(axis, _index(nearest(places), n, x))
    inside = np.clip(places, 0, n - 1)
    low = np.floor(inside)
    share = torch.from_numpy(inside - low).to(x)
    share = share.reshape(-1, *[1] * (x.dim() - axis - 1))
    return torch.lerp(x.index_select(axis, _index(low, n, x)), x.index_select(axis, _index(low + 1, n, x)), share)


def _index(places: Array, n: int, x: Tensor) -> Tensor:
    return torch.from_numpy(np.clip(places, 0, n - 1).astype(np.int64)).to(x.device)
