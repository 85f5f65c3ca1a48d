"""Operators that read only the shape: the channels they count may be cut, the count follows by itself.

A shape that ends in Reshape, Slice or Pad is checked there (`layout.reshape` follows it back to the width it
counts); one that ends in arithmetic on data is not followed, so what could reach data freezes at its reader.
"""

from __future__ import annotations

from bocr_onnx.graph import Node
from bocr_onnx.groups.labels import Labeller
from bocr_onnx.groups.rules.registry import rule

_FOLLOWED = frozenset({"Gather", "Unsqueeze", "Squeeze", "Cast", "Concat", "Slice", "Reshape", "Identity"})


@rule("Shape")
def shape(node: Node, at: Labeller) -> None:
    """Lets a shape pass that only feeds reshapes; freezes the channels whose count is used otherwise."""
    for axis, labels in at.read(node.inputs[0]).items():
        if _counts(node, axis, at):
            at.freeze(node, labels, "their number is used in arithmetic")


@rule("Size")
def size(node: Node, at: Labeller) -> None:
    """Freezes: the number of elements depends on the width."""
    at.freeze_inputs(node, "their number is used in arithmetic")


def _counts(node: Node, axis: int, at: Labeller) -> bool:
    """Returns whether the entry of an axis reaches anything but the target of a Reshape."""
    waiting = [(node.outputs[0], True)]
    while waiting:
        name, is_vector = waiting.pop()
        if name in at.graph.outputs:
            return True
        for index, position in at.graph.readers.get(name, ()):
            reader = at.graph.nodes[index]
            if reader.op == "Gather" and is_vector and position == 0:
                picked = at.constant(reader.inputs[1])
                if picked is not None and axis not in picked.reshape(-1).tolist():
                    continue
                waiting.append((reader.outputs[0], False))
            elif reader.op == "Slice" and is_vector and position == 0:
                continue_with = _sliced(reader, axis, at)
                if continue_with:
                    waiting.append((reader.outputs[0], False))
            elif reader.op == "Reshape" and position == 1:
                continue
            elif (reader.op in _FOLLOWED and position == 0) or reader.op == "Concat":
                waiting.append((reader.outputs[0], False))
            else:
                return True
    return False


def _sliced(reader: Node, axis: int, at: Labeller) -> bool:
    start, end = at.constant(reader.input(1)), at.constant(reader.input(2))
    if start is None or end is None or start.size != 1:
        return True
    rank = 1 << 30
    indices = range(*slice(int(start.reshape(-1)[0]), int(end.reshape(-1)[0])).indices(rank))
    return axis in indices or int(start.reshape(-1)[0]) < 0
