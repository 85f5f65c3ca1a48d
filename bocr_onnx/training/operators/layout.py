"""Operators that move elements, or copy them, without computing on them."""

from __future__ import annotations

from math import prod

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bocr_onnx.graph import Node
from bocr_onnx.training.operators.registry import Context, Inputs, given, ints, need, operator, together


@operator("Reshape", since=5)
def reshape(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the elements in another shape; 0 keeps an axis, -1 takes what is left."""
    x = need(inputs, 0)
    shape = ints(node, "shape", inputs, 1) or []
    if not node.attributes.get("allowzero", 0):
        shape = [x.shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
    return torch.reshape(x, shape)


@operator("Flatten")
def flatten(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns a matrix: the axes before the given one are its rows."""
    x = need(inputs, 0)
    axis = node.attributes.get("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    return x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))


@operator("Transpose")
def transpose(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the axes in another order."""
    x = need(inputs, 0)
    return x.permute(node.attributes.get("perm") or list(reversed(range(x.dim()))))


@operator("Squeeze")
def squeeze(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the input without the given axes of size 1 (without all of them where none is given)."""
    x = need(inputs, 0)
    axes = ints(node, "axes", inputs, 1)
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


@operator("Unsqueeze")
def unsqueeze(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the input with new axes of size 1, counted in the output."""
    x = need(inputs, 0)
    axes = ints(node, "axes", inputs, 1) or []
    rank = x.dim() + len(axes)
    for axis in sorted(a % rank for a in axes):
        x = x.unsqueeze(axis)
    return x


@operator("Concat", since=4)
def concat(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the inputs joined along an axis."""
    return torch.cat(together(inputs), dim=node.attributes["axis"])


@operator("Split", since=2, n_outputs=None)
def split(node: Node, inputs: Inputs, ctx: Context) -> tuple[Tensor, ...]:
    """Returns the pieces: of given sizes, or equal ones of which the last may be smaller."""
    x, axis = need(inputs, 0), node.attributes.get("axis", 0)
    sizes = ints(node, "split", inputs, 1)
    if sizes is not None:
        return torch.split(x, sizes, dim=axis)
    n_pieces = node.attributes.get("num_outputs", len(node.outputs))
    return torch.split(x, -(-x.shape[axis] // n_pieces), dim=axis)


@operator("Slice")
def cut(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns a part of every given axis; bounds are clamped as Python does."""
    x = need(inputs, 0)
    starts, ends = ints(node, "starts", inputs, 1) or [], ints(node, "ends", inputs, 2) or []
    axes = ints(node, "axes", inputs, 3) or list(range(len(starts)))
    steps = ints(node, "steps", inputs, 4) or [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        chosen = range(x.shape[axis])[start:end:step]
        if step == 1:
            x = x.narrow(axis, chosen.start, len(chosen))
        else:
            x = x.index_select(axis, torch.tensor(chosen, dtype=torch.int64, device=x.device))
    return x


@operator("Gather")
def gather(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the entries of an axis at the indices; negative ones count from the end."""
    x, indices = need(inputs, 0), need(inputs, 1).long()
    axis = node.attributes.get("axis", 0) % x.dim()
    flat = torch.where(indices < 0, indices + x.shape[axis], indices).reshape(-1).to(x.device)
    return torch.reshape(x.index_select(axis, flat), (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


@operator("Pad", since=2)
def pad(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the input grown (cropped where negative) by a constant, its mirror image or its edge."""
    x = need(inputs, 0)
    pads = ints(node, "pads", inputs, 1) or []
    axes = ints(node, "axes", inputs, 3) or list(range(x.dim()))
    begin, end = [0] * x.dim(), [0] * x.dim()
    for axis, b, e in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        begin[axis], end[axis] = b, e
    mode = node.attributes.get("mode", "constant")
    if mode == "constant":
        value = given(inputs, 2)
        fill = node.attributes.get("value", 0.0) if value is None else value.item()
        return functional.pad(x, [p for b, e in zip(begin[::-1], end[::-1], strict=True) for p in (b, e)], value=fill)
    for axis, (b, e) in enumerate(zip(begin, end, strict=True)):
        if b or e:
            index = np.pad(np.arange(x.shape[axis]), (max(b, 0), max(e, 0)), mode=mode)
            index = index[max(-b, 0) : len(index) - max(-e, 0)]
            x = x.index_select(axis, torch.from_numpy(index).to(x.device))
    return x


@operator("Expand")
def expand(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the input broadcast with a shape, in both directions."""
    x = need(inputs, 0)
    shape = ints(node, "shape", inputs, 1) or []
    rank = max(x.dim(), len(shape))
    target = [1] * (rank - len(shape)) + shape
    own = [1] * (rank - x.dim()) + list(x.shape)
    return x.expand([size if n == 1 else n for n, size in zip(own, target, strict=True)])


@operator("Tile", since=6)
def tile(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the input repeated along every axis."""
    return need(inputs, 0).repeat(ints(node, "repeats", inputs, 1) or [])


@operator("DepthToSpace")
def depth_to_space(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns `(N, C / b^2, H b, W b)`; mode DCR reads the channels as `(b, b, C')`, CRD as `(C', b, b)`."""
    x, b = need(inputs, 0), node.attributes["blocksize"]
    n, c, h, w = x.shape
    if node.attributes.get("mode", "DCR") == "DCR":
        x = x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        x = x.reshape(n, c // b**2, b, b, h, w).permute(0, 1, 4, 2, 5, 3)
    return x.reshape(n, c // b**2, h * b, w * b)


@operator("SpaceToDepth")
def space_to_depth(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns `(N, C b^2, H / b, W / b)`, the blocks' positions ahead of the channels."""
    x, b = need(inputs, 0), node.attributes["blocksize"]
    n, c, h, w = x.shape
    return x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(n, c * b**2, h // b, w // b)


@operator("Trilu")
def trilu(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the upper (or lower) triangle of the last two axes, zero elsewhere."""
    diagonal = given(inputs, 1)
    k = 0 if diagonal is None else int(diagonal.item())
    return torch.triu(need(inputs, 0), k) if node.attributes.get("upper", 1) else torch.tril(need(inputs, 0), k)
