"""Slice, Gather and Pad choose entries of an axis.

Slice    y[k] = x[start + k]: the labels of the window; start and end count the channels kept before them
Gather   y[k] = x[index[k]]: the labels of the entries; indices are positions on the axis, and move with it
Pad      y = [0 ... 0, x, 0 ... 0]: padded positions get labels of their own, so that a padded channel leaves
         with whatever it meets later; the pad amounts count the kept ones (the CIFAR shortcut)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bocr_onnx.graph import Node
from bocr_onnx.groups.labels import Labeller
from bocr_onnx.groups.records import EVERY, Block, Labels, RuleError, on
from bocr_onnx.groups.rules.registry import rule

MAX_GATHERED = 1 << 16


@dataclass(frozen=True, slots=True)
class _Window:
    """Slice along one axis: where its bounds stand in the lists of the node, and what they say."""

    position: int
    start: int
    end: int
    step: int


@rule("Slice")
def slice_(node: Node, at: Labeller) -> None:
    """Takes the labels of the window."""
    blocks = at.read(node.inputs[0])
    if not blocks:
        return
    for axis, window in _windows(node, at).items():
        blocks = tuple(kept for block in blocks if (kept := _cut_window(node, at, block, axis, window)) is not None)
    at.emit(node.outputs[0], blocks)


def _cut_window(node: Node, at: Labeller, block: Block, axis: int, window: _Window) -> Block | None:
    if axis not in block.axes:
        return block
    rows = block.rows(axis)
    begin, stop, _ = slice(window.start, window.end, window.step).indices(len(rows))
    if (begin, stop, window.step) == (0, len(rows), 1):
        return block
    if window.step != 1 or begin >= stop:
        return at.squash(node, block, {axis}, "Slice takes channels with a step, or none")
    starts, ends = ("starts", "ends") if at.graph.opset < 10 else (1, 2)
    for where, bound in ((starts, begin), (ends, stop)):
        at.count(node, where, window.position, rows[:bound])
    return block.picked(axis, slice(begin, stop))


def _windows(node: Node, at: Labeller) -> dict[int, _Window]:
    """Returns the window of every sliced axis.

    Raises:
        RuleError: An axis that carries labels may be sliced by computed bounds.
    """
    rank = len(at.shape(node.inputs[0]))
    if at.graph.opset < 10:
        starts, ends = node.attributes["starts"], node.attributes["ends"]
        axes = node.attributes.get("axes") or list(range(len(starts)))
        return {a % rank: _Window(i, s, e, 1) for i, (a, s, e) in enumerate(zip(axes, starts, ends, strict=True))}
    given = [at.constant(node.input(i)) if node.input(i) else None for i in range(5)]
    if node.input(3) and given[3] is None:
        raise RuleError("the sliced axes are computed")
    n = next((len(g) for g in given[1:] if g is not None), rank)
    axes = [int(a) % rank for a in given[3].reshape(-1)] if given[3] is not None else list(range(n))
    labelled = {axis for block in at.read(node.inputs[0]) for axis in block.axes}
    if not labelled & set(axes):
        return {}
    if given[1] is None or given[2] is None or (node.input(4) and given[4] is None):
        raise RuleError("the window is computed")
    steps = given[4].reshape(-1).tolist() if given[4] is not None else [1] * n
    bounds = zip(axes, given[1].reshape(-1).tolist(), given[2].reshape(-1).tolist(), steps, strict=True)
    return {axis: _Window(i, int(s), int(e), int(step)) for i, (axis, s, e, step) in enumerate(bounds)}


@rule("Gather")
def gather(node: Node, at: Labeller) -> None:
    """Takes the labels of the entries that a constant asks for; the axis may be replaced by none or by several."""
    blocks = at.read(node.inputs[0])
    if at.read(node.inputs[1]):
        raise RuleError("the channels say which entries are taken")
    if not blocks:
        return
    rank = len(at.shape(node.inputs[0]))
    axis = int(node.attributes.get("axis", 0)) % rank
    added = len(at.shape(node.inputs[1]))
    where = {a: a if a < axis else a + added - 1 for a in range(rank)}
    made = [_gathered(node, at, block, axis, added) if axis in block.axes else block for block in blocks]
    at.emit(node.outputs[0], [block.placed(where) for block in made if block is not None])


def _gathered(node: Node, at: Labeller, block: Block, axis: int, added: int) -> Block | None:
    indices = at.constant(node.inputs[1])
    reason = "which channels Gather takes is computed" if indices is None else "Gather deals channels out over axes"
    if indices is None or added > 1 or indices.size > MAX_GATHERED:
        return at.squash(node, block, {axis}, reason)
    rows = block.rows(axis)
    positions = indices.reshape(-1).astype(np.int64) % len(rows)
    if added:
        labels = at.collapse(block, axis)
        at.count(node, 1, EVERY, labels)
        at.cut((node.index, 1), 0, labels[positions])
        return on(axis, labels[positions])
    at.count(node, 1, EVERY, rows)
    picked = block.picked(axis, positions)
    rest = tuple(a for a in block.axes if a != axis)
    if not rest:
        at.freeze(node, picked.labels, "Gather takes a single channel")
        return None
    return Block(rest, picked.labels.squeeze(block.axes.index(axis)))


@rule("Pad", opset=(2, 1_000))
def pad(node: Node, at: Labeller) -> None:
    """Lays fresh labels before and after the window."""
    blocks = at.read(node.inputs[0])
    if not blocks:
        return
    rank = len(at.shape(node.inputs[0]))
    where: int | str = 1 if at.graph.opset >= 11 else "pads"
    axes = _padded_axes(node, at, rank)
    amounts = _amounts(node, at, where)
    made: list[Block] = []
    for block in blocks:
        free: Block | None = block
        for i, axis in enumerate(axes):
            if free is not None and axis in free.axes:
                free = _padded(node, at, free, axis, where, (i, i + len(axes)), amounts)
        if free is not None:
            made.append(free)
    at.emit(node.outputs[0], made)


def _amounts(node: Node, at: Labeller, where: int | str) -> list[int | None]:
    """Returns the pad amounts; None where one depends on the input."""
    if where != 1:
        return list(node.attributes.get("pads", []))
    entries = at.entries_of(node, 1)
    if entries is None:
        raise RuleError("the pad amounts depend on the input")
    constant = at.constant(node.inputs[1]) is not None
    return [e.value if constant or (e.width is None and e.value == 0) else None for e in entries]


def _padded_axes(node: Node, at: Labeller, rank: int) -> list[int]:
    if not node.input(3):
        return list(range(rank))
    axes = at.constant(node.input(3))
    if axes is None:
        raise RuleError("the padded axes are computed")
    return [int(a) % rank for a in axes.reshape(-1)]


def _padded(
    node: Node,
    at: Labeller,
    block: Block,
    axis: int,
    where: int | str,
    positions: tuple[int, int],
    amounts: list[int | None],
) -> Block | None:
    before, after = (amounts[p] for p in positions)
    if before == after == 0:
        return block
    zero = node.attributes.get("mode", "constant") == "constant"
    if before is None or after is None or before < 0 or after < 0 or not zero:
        return at.squash(node, block, {axis}, "Pad repeats or removes channels, or the pad amounts are computed")
    return on(axis, _laid_around(node, at, where, positions, at.collapse(block, axis), (before, after)))


def _laid_around(
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
