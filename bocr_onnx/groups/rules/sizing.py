"""Operators that are told a size: an axis whose size they leave alone keeps its labels, and the size follows them.

Resize, Upsample     y[n, c, q] = f(x[n, c, p(q)])
Expand, Tile         an axis of one entry is repeated: any labels fit it, so it takes those that its size counts
ConstantOfShape      as Expand, of one number

The states in which recurrent operators begin are often made so, of a constant size: that size follows the hidden units.
"""

from __future__ import annotations

from bocr_onnx.graph import RECURRENT, Node
from bocr_onnx.groups.labels import Labeller
from bocr_onnx.groups.records import Block, Entry, RuleError, on
from bocr_onnx.groups.rules.registry import rule

STATES = frozenset({5, 6})
"""Inputs of recurrent operators that are initial states."""

MOVES = frozenset("Cast Concat Gather Identity Reshape Slice Split Squeeze Transpose Unsqueeze".split())
"""Operators through which a state comes from where its size is told."""


@rule("Resize", "Upsample")
def resize(node: Node, at: Labeller) -> None:
    """Passes the axes that keep their size."""
    before, after = at.shape(node.inputs[0]), at.shape(node.outputs[0])
    scaled = {axis for axis, (a, b) in enumerate(zip(before, after, strict=True)) if a != b}
    blocks = [at.squash(node, b, scaled, f"{node.op} scales the channel axis") for b in at.read(node.inputs[0])]
    sizes = 3 if node.op == "Resize" and at.graph.opset >= 11 and node.input(3) else 0
    if sizes:
        entries = at.entries_of(node, sizes)
        axes = [int(a) % len(before) for a in node.attributes.get("axes") or range(len(before))]
        blocks = [b and _with_sizes(node, at, b, entries, axes) for b in blocks]
        _freeze_rest(node, at, entries or (), axes, blocks)
    at.emit(node.outputs[0], [b for b in blocks if b is not None])


def _with_sizes(
    node: Node, at: Labeller, block: Block, entries: tuple[Entry, ...] | None, axes: list[int]
) -> Block | None:
    if entries is None:
        raise RuleError("the size depends on the input")
    stuck = {a for a in block.axes if a in axes and not at.follow(node, entries[axes.index(a)], block.rows(a))}
    return at.squash(node, block, stuck, f"the size of {node.op} is computed in a way that does not follow the width")


def _freeze_rest(
    node: Node, at: Labeller, entries: tuple[Entry, ...], axes: list[int], blocks: list[Block | None]
) -> None:
    labelled = {axis for block in blocks if block is not None for axis in block.axes}
    for axis, entry in zip(axes, entries, strict=False):
        if axis not in labelled:
            at.freeze_entry(node, entry)


@rule("Expand")
def expand(node: Node, at: Labeller) -> None:
    """Passes the axes that keep their size, and labels those that are repeated by what their size counts."""
    before, after = at.shape(node.inputs[0]), at.shape(node.outputs[0])
    shift = len(after) - len(before)
    entries = at.entries_of(node, 1)
    if entries is None:
        raise RuleError("the size depends on the input")
    skipped = len(after) - len(entries)
    blocks: list[Block] = []
    for whole in at.read(node.inputs[0]):
        block = at.squash(node, whole, {a for a in whole.axes if before[a] == 1}, "")
        if block is None:
            continue
        stuck = {a for a in block.axes if not _fits(node, at, block, a, entries, a + shift - skipped)}
        kept = at.squash(node, block, stuck, "the size is computed in a way that does not follow the width")
        if kept is not None:
            blocks.append(kept.placed({a: a + shift for a in kept.axes}))
    passed = {axis for block in blocks for axis in block.axes}
    for i, entry in enumerate(entries):
        axis = i + skipped
        own = axis - shift
        if axis in passed:
            continue
        if own < 0 or before[own] == 1:
            blocks += _repeated(node, at, axis, entry)
        elif axis == len(after) - 1 and at.constant(node.inputs[0]) is not None and begins_a_state(node, at):
            blocks += _stored_state(node, at, (own, axis), entry)
        else:
            at.freeze_entry(node, entry)
    at.emit(node.outputs[0], blocks)


def _fits(node: Node, at: Labeller, block: Block, axis: int, entries: tuple[Entry, ...], entry: int) -> bool:
    if entry < 0 or (entries[entry].value in (1, -1) and entries[entry].width is None):
        return True
    return at.follow(node, entries[entry], block.rows(axis))


def _stored_state(node: Node, at: Labeller, axes: tuple[int, int], entry: Entry) -> list[Block]:
    """Returns fresh labels of an axis (its number before and after) of a constant that is repeated along others."""
    labels = at.fresh(at.shape(node.inputs[0])[axes[0]])
    if entry.value not in (1, -1) and not at.follow(node, entry, labels):
        return []
    at.cut((node.index, 0), axes[0], labels)
    return [on(axes[1], labels)]


def begins_a_state(node: Node, at: Labeller) -> bool:
    """Returns whether what a node makes is read as an initial state, directly or through what only moves it."""
    waiting, seen = [node.outputs[0]], set[str]()
    while waiting:
        name = waiting.pop()
        for index, position in at.graph.readers.get(name, ()) if name not in seen else ():
            reader = at.graph.nodes[index]
            if not reader.domain and reader.op in RECURRENT and position in STATES:
                return True
            waiting += reader.outputs if reader.op in MOVES else ()
        seen.add(name)
    return False


def _repeated(node: Node, at: Labeller, axis: int, entry: Entry) -> list[Block]:
    """Returns the labels of an axis along which all entries are equal: those that its size counts.

    A constant size counts nothing. Those of the hidden units in a state get labels of their own, which it follows.
    """
    if entry.width is None:
        last = axis == len(at.shape(node.outputs[0])) - 1
        if entry.value < 2 or not last or not entry.slots or not begins_a_state(node, at):
            return []
        labels = at.fresh(entry.value)
        return [on(axis, labels)] if at.follow(node, entry, labels) else []
    if entry.times != 1:
        at.freeze_entry(node, entry)
        return []
    labels = at.collapse(Block((0, 1), entry.width), 0)
    return [on(axis, labels)]


@rule("ConstantOfShape")
def constant_of_shape(node: Node, at: Labeller) -> None:
    """Labels every axis by what its size counts."""
    entries = at.entries_of(node, 0)
    if entries is None:
        raise RuleError("the size depends on the input")
    at.emit(node.outputs[0], [b for axis, entry in enumerate(entries) for b in _repeated(node, at, axis, entry)])


@rule("Tile")
def tile(node: Node, at: Labeller) -> None:
    """Repeats the labels of an axis as often as the axis."""
    repeats = at.entries_of(node, 1)
    if repeats is None or any(entry.width is not None for entry in repeats):
        raise RuleError("how often is computed")
    blocks = []
    for block in at.read(node.inputs[0]):
        blocks.append(Block(block.axes, at.repeated(block.labels, [repeats[a].value for a in block.axes])))
    at.emit(node.outputs[0], blocks)
