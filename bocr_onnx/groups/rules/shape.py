"""Arithmetic on shapes: which element of an integer tensor counts which channels.

    Shape -> Gather -> Mul -> Concat -> Reshape

A count follows by itself when channels are cut, since the model computes it; a constant beside it (the 12 heads of
`(N, 197, 12, 64)`) has to be rewritten, and is remembered as a slot until a target shape meets an axis. Where a count
goes into arithmetic that has no rule here, the channels it counts are frozen.
"""

from __future__ import annotations

import numpy as np

from bocr_onnx.graph import Node
from bocr_onnx.groups.labels import Labeller
from bocr_onnx.groups.records import Entry, RuleError
from bocr_onnx.groups.rules.registry import arithmetic, refuse

Entries = tuple[Entry, ...]

refuse("the number of channels is used in arithmetic", "Size")


@arithmetic("Shape")
def shape(node: Node, at: Labeller) -> Entries:
    """Returns the sizes of the axes."""
    sizes = at.shape(node.inputs[0])
    rows = {axis: block.rows(axis) for block in at.read(node.inputs[0]) for axis in block.axes}
    made = [Entry(size, rows.get(axis)) for axis, size in enumerate(sizes)]
    return tuple(made[node.attributes.get("start", 0) : node.attributes.get("end", len(sizes))])


@arithmetic("Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Flatten")
def same(node: Node, at: Labeller) -> Entries:
    """Returns the elements in the same order."""
    for position in range(1, len(node.inputs)):
        if any(entry.width is not None for entry in at.counted(node, position)):
            raise RuleError("a number of channels says where")
    return at.counted(node, 0)


@arithmetic("Concat")
def concat(node: Node, at: Labeller) -> Entries:
    """Returns the elements of all operands."""
    return tuple(entry for i in range(len(node.inputs)) for entry in at.counted(node, i))


@arithmetic("Gather")
def gather(node: Node, at: Labeller) -> Entries:
    """Returns the elements at constant positions."""
    source = at.counted(node, 0)
    positions = at.constant(node.inputs[1])
    if positions is None:
        raise RuleError("a number of channels is picked by a computed position")
    return tuple(source[int(i)] for i in positions.reshape(-1))


@arithmetic("Slice")
def slice_(node: Node, at: Labeller) -> Entries:
    """Returns the elements of a constant window."""
    source = at.counted(node, 0)
    if at.graph.opset < 10:
        return source[node.attributes["starts"][0] : node.attributes["ends"][0]]
    bounds = [at.constant(node.input(i)) for i in (1, 2)]
    step = at.constant(node.input(4)) if node.input(4) else np.ones(1)
    if bounds[0] is None or bounds[1] is None or step is None:
        raise RuleError("a number of channels is picked by a computed position")
    return source[int(bounds[0].item()) : int(bounds[1].item()) : int(step.item())]


@arithmetic("Mul")
def mul(node: Node, at: Labeller) -> Entries:
    """Returns products; a width times a number that is not a width, or two numbers."""
    return tuple(_product(a, b) for a, b in _pairs(node, at))


def _product(a: Entry, b: Entry) -> Entry:
    if a.width is not None and b.width is not None:
        raise RuleError("two numbers of channels are multiplied")
    if b.width is not None:
        a, b = b, a
    if a.width is not None:
        return Entry(a.value * b.value, a.width, a.times * b.value)
    return Entry(a.value * b.value, slots=(*a.slots, *b.slots))


@arithmetic("Div")
def div(node: Node, at: Labeller) -> Entries:
    """Returns exact quotients of widths and numbers."""
    return tuple(_quotient(a, b) for a, b in _pairs(node, at))


def _quotient(a: Entry, b: Entry) -> Entry:
    if b.width is not None or not b.value or (a.width is not None and a.value % b.value):
        raise RuleError("a number of channels is divided")
    if a.width is not None:
        return Entry(a.value // b.value, a.width, a.times / b.value)
    return Entry(a.value // b.value)


@arithmetic("Equal")
def equal(node: Node, at: Labeller) -> Entries:
    """Returns comparisons with numbers that no count can be."""
    made = []
    for a, b in _pairs(node, at):
        counts = [e for e in (a, b) if e.width is not None]
        others = [e.value for e in (a, b) if e.width is None]
        if counts and not (others and others[0] < 0):
            raise RuleError("a number of channels is compared")
        made.append(Entry(int(a.value == b.value)))
    return tuple(made)


@arithmetic("Where")
def where(node: Node, at: Labeller) -> Entries:
    """Returns the elements that a condition chooses, which itself counts nothing."""
    condition = at.counted(node, 0)
    if any(entry.width is not None for entry in condition):
        raise RuleError("a number of channels decides")
    pairs = [at.counted(node, i) for i in (1, 2)]
    n = max(len(condition), *map(len, pairs))
    spread = [e * n if len(e) == 1 else e for e in (condition, *pairs)]
    return tuple(a if c.value else b for c, a, b in zip(*spread, strict=True))


def _pairs(node: Node, at: Labeller) -> list[tuple[Entry, Entry]]:
    a, b = at.counted(node, 0), at.counted(node, 1)
    n = max(len(a), len(b))
    a, b = (e * n if len(e) == 1 else e for e in (a, b))
    return list(zip(a, b, strict=True))
