"""Slice and Pad choose a window of an axis.

Slice    y[k] = x[start + k]: the labels of the window; start and end count the channels kept before them
Pad      y = [0 ... 0, x, 0 ... 0]: padded positions get labels of their own, so that a padded channel leaves
         with whatever it meets later; the pad amounts count the kept ones (the CIFAR shortcut)
"""

from __future__ import annotations

import numpy as np

from bocr_onnx.graph import Node
from bocr_onnx.groups.labels import Axes, Labeller, Labels
from bocr_onnx.groups.rules.registry import rule


@rule("Slice")
def slice_(node: Node, at: Labeller) -> None:
    """Takes the labels of the window."""
    shape = at.shape(node.inputs[0])
    axes = at.read(node.inputs[0])
    window = _window(node, at, len(shape)) if shape is not None else None
    if shape is None or window is None:
        at.freeze_inputs(node, "the window is computed")
        return
    out: Axes = {}
    for axis, labels in axes.items():
        if axis not in window:
            out[axis] = labels
            continue
        position, start, end, step = window[axis]
        begin, stop, _ = slice(start, end, step).indices(len(labels))
        if (begin, stop, step) == (0, len(labels), 1):
            out[axis] = labels
        elif step == 1 and begin < stop:
            starts, ends = ("starts", "ends") if at.graph.opset < 10 else (1, 2)
            at.count(node, starts, position, labels[:begin])
            at.count(node, ends, position, labels[:stop])
            out[axis] = labels[begin:stop]
        else:
            at.freeze(node, labels, "Slice takes channels with a step, or none")
    at.emit(node.outputs[0], out)


def _window(node: Node, at: Labeller, rank: int) -> dict[int, tuple[int, int, int, int]] | None:
    """Returns axis -> (position in the lists, start, end, step), or None where it is not constant."""
    if at.graph.opset < 10:
        starts, ends = node.attributes["starts"], node.attributes["ends"]
        axes = node.attributes.get("axes") or list(range(len(starts)))
        steps = [1] * len(starts)
    else:
        given = [at.constant(node.input(i)) if node.input(i) else None for i in range(1, 5)]
        if given[0] is None or given[1] is None:
            return None
        if any(node.input(i) and given[i - 1] is None for i in (3, 4)):
            return None
        starts, ends = given[0].reshape(-1).tolist(), given[1].reshape(-1).tolist()
        axes = given[2].reshape(-1).tolist() if given[2] is not None else list(range(len(starts)))
        steps = given[3].reshape(-1).tolist() if given[3] is not None else [1] * len(starts)
    return {
        int(axis) % rank: (i, int(s), int(e), int(step))
        for i, (axis, s, e, step) in enumerate(zip(axes, starts, ends, steps, strict=True))
    }


@rule("Pad", opset=(2, 1_000))
def pad(node: Node, at: Labeller) -> None:
    """Lays fresh labels before and behind the window."""
    shape = at.shape(node.inputs[0])
    axes = at.read(node.inputs[0])
    where: int | str = 1 if at.graph.opset >= 11 else "pads"
    amounts = at.constant(node.input(1)) if where == 1 else np.array(node.attributes.get("pads", []))
    if shape is None or amounts is None:
        at.freeze_inputs(node, "the pad amounts are computed")
        return
    padded = _padded_axes(node, at, len(shape))
    if padded is None:
        at.freeze_inputs(node, "the padded axes are computed")
        return
    out: Axes = {}
    for axis, labels in axes.items():
        if axis not in padded:
            out[axis] = labels
            continue
        i = padded.index(axis)
        before, after = int(amounts[i]), int(amounts[i + len(padded)])
        if before == after == 0:
            out[axis] = labels
        elif before < 0 or after < 0 or node.attributes.get("mode", "constant") != "constant":
            at.freeze(node, labels, "Pad repeats or removes channels")
        else:
            out[axis] = _lay_around(node, at, where, (i, i + len(padded)), labels, (before, after))
    at.emit(node.outputs[0], out)


def _padded_axes(node: Node, at: Labeller, rank: int) -> list[int] | None:
    if not node.input(3):
        return list(range(rank))
    axes = at.constant(node.input(3))
    return None if axes is None else [int(a) % rank for a in axes.reshape(-1)]


def _lay_around(
    node: Node,
    at: Labeller,
    where: int | str,
    positions: tuple[int, int],
    labels: Labels,
    amounts: tuple[int, int],
) -> Labels:
    parts = [at.fresh(n) for n in amounts]
    for position, part in zip(positions, parts, strict=True):
        at.count(node, where, position, part)
    return np.concatenate([parts[0], labels, parts[1]])
