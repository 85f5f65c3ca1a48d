"""Operators that read only the shape: the channels they count may be cut, the count follows by itself.

Shape -> Gather -> Unsqueeze -> Concat -> Reshape      the width may follow: `layout.reshape` decides
anything else                                          arithmetic on the width: the channels are frozen
"""

from __future__ import annotations

from bocr_onnx.graph import Node
from bocr_onnx.groups.labels import Labeller, Labels
from bocr_onnx.groups.rules.registry import rule

_WRAPPERS = frozenset({"Unsqueeze", "Squeeze", "Cast", "Identity", "Reshape"})
"""What may lie between a width and the Concat that puts it into a target shape."""


@rule("Shape")
def shape(node: Node, at: Labeller) -> None:
    """Lets a shape pass that only feeds reshapes; freezes the channels whose count is used otherwise."""
    entries = _entries(node, at)
    for axis, labels in at.read(node.inputs[0]).items():
        if entries is None or (axis in entries and _counts(node, entries.index(axis), len(entries), at)):
            at.freeze(node, labels, "their number is used in arithmetic")


@rule("Size")
def size(node: Node, at: Labeller) -> None:
    """Freezes: the number of elements depends on the width."""
    at.freeze_inputs(node, "their number is used in arithmetic")


def width_labels(name: str, at: Labeller) -> Labels | None:
    """Returns the labels that a tensor of one element counts, or None where it is not the width of a labelled axis."""
    picked = 0
    while (index := at.graph.producer.get(name)) is not None:
        node = at.graph.nodes[index]
        if node.op == "Shape":
            entries = _entries(node, at) or range(0)
            inside = -len(entries) <= picked < len(entries)
            return at.read(node.inputs[0]).get(entries[picked]) if inside else None
        if node.op == "Gather":
            positions = at.constant(node.inputs[1])
            if positions is None or positions.size != 1:
                return None
            picked = int(positions.reshape(-1)[0])
        elif node.op not in _WRAPPERS:
            return None
        name = node.inputs[0]
    return None


def _entries(node: Node, at: Labeller) -> range | None:
    """Returns the axes that the entries of a Shape's output count, or None where the rank is unknown."""
    found = at.shape(node.inputs[0])
    if found is None:
        return None
    return range(len(found))[node.attributes.get("start", 0) : node.attributes.get("end", len(found))]


def _counts(node: Node, entry: int, n: int, at: Labeller) -> bool:
    """Returns whether one of the `n` entries of a shape reaches anything but, by way of Concat, a Reshape's target."""
    waiting = [(node.outputs[0], "shape")]
    while waiting:
        name, kind = waiting.pop()
        if name in at.graph.outputs or name in at.captured:
            return True
        for index, position in at.graph.readers.get(name, ()):
            reader = at.graph.nodes[index]
            if kind == "shape" and not _takes(reader, position, entry, n, at):
                continue
            if reader.op == "Reshape" and position == 1 and kind == "target":
                continue
            follows = _follows(reader, position, kind, n, at)
            if not follows:
                return True
            waiting.append((reader.outputs[0], follows))
    return False


def _follows(reader: Node, position: int, kind: str, n: int, at: Labeller) -> str:
    """Returns what a reader makes of a shape or a width, `""` where `width_labels` could not find the way back."""
    single = kind == "width" or (kind == "shape" and n == 1)
    if reader.op == "Gather" and kind == "shape" and position == 0:
        picked = at.constant(reader.inputs[1])
        return "width" if picked is not None and picked.size == 1 else ""
    if reader.op == "Concat" and single:
        return "target"
    return "width" if reader.op in _WRAPPERS and single and position == 0 else ""


def _takes(reader: Node, position: int, entry: int, n: int, at: Labeller) -> bool:
    """Returns whether Gather or Slice may take an entry out of a shape of `n`; other readers take all."""
    if position != 0:
        return True
    if reader.op == "Gather":
        picked = at.constant(reader.inputs[1])
        return picked is None or entry in [int(i) % n for i in picked.reshape(-1)]
    if reader.op == "Slice" and at.graph.opset >= 10:
        bounds = [at.constant(reader.input(i)) for i in (1, 2)]
        steps = at.constant(reader.input(4))
        if any(b is None or b.size != 1 for b in bounds) or (reader.input(4) and steps is None):
            return True
        start, end = (int(b.reshape(-1)[0]) for b in bounds if b is not None)
        return entry in range(n)[start : end : 1 if steps is None else int(steps.reshape(-1)[0])]
    return True
