"""Concat lays labels end to end; Split takes them apart again.

y = [a, b]      labels of a, then those of b, on the joined axis; on the others they meet
"""

from __future__ import annotations

import numpy as np

from bocr_onnx.graph import Node, operand_positions
from bocr_onnx.groups.labels import Labeller
from bocr_onnx.groups.records import Block, Default, Labels, RuleError, on
from bocr_onnx.groups.rules.meeting import Term, meet
from bocr_onnx.groups.rules.registry import rule


@rule("QLinearConcat", domain="com.microsoft")
@rule("Concat")
def concat(node: Node, at: Labeller) -> None:
    """Lays labels end to end on the joined axis and joins them on the others."""
    names = {i: node.inputs[i] for i in operand_positions(node)}
    if not any(at.read(name) for name in names.values()):
        return
    shapes = {i: at.shape(name) for i, name in names.items()}
    rank = len(at.shape(node.outputs[0]))
    axis = int(node.attributes.get("axis", 1)) % max(rank, 1)
    laid: list[Block] = []
    if any(axis in block.axes for name in names.values() for block in at.read(name)):
        parts = [_along(node, at, i, axis, shape[axis]) for i, shape in shapes.items()]
        laid.append(on(axis, np.concatenate(parts)))
    terms = [Term(i, tuple(rank + i if a == axis else a for a in range(rank))) for i in names]
    others = [block for block in meet(node, at, terms) if max(block.axes) < rank]
    at.emit(node.outputs[0], laid + others)


def _along(node: Node, at: Labeller, position: int, axis: int, n: int) -> Labels:
    name = node.inputs[position]
    for block in at.read(name):
        if axis in block.axes:
            return at.collapse(block, axis)
    made = at.fresh(n)
    if at.constant(name) is not None:
        at.cut((node.index, position), axis, made)
    else:
        at.freeze(node, made, "")
    return made


@rule("Split")
def split(node: Node, at: Labeller) -> None:
    """Hands every part its labels; the sizes of the parts count them."""
    shape = at.shape(node.inputs[0])
    axis = int(node.attributes.get("axis", 0)) % len(shape)
    sizes = [at.shape(name)[axis] for name in node.outputs]
    if sum(sizes) != shape[axis]:
        raise RuleError("the parts do not add up")
    ends = np.cumsum([0, *sizes])
    passed = [b for b in at.read(node.inputs[0]) if axis not in b.axes]
    divided = [b for b in at.read(node.inputs[0]) if axis in b.axes]
    for block in divided:
        _follow_sizes(node, at, block, axis, ends.tolist())
    for i, name in enumerate(node.outputs):
        at.emit(name, [*passed, *(b.picked(axis, slice(ends[i], ends[i + 1])) for b in divided)])


def _follow_sizes(node: Node, at: Labeller, block: Block, axis: int, ends: list[int]) -> None:
    sizes = np.diff(ends)
    where: int | str = 1 if at.graph.opset >= 13 else "split"
    if where == 1 and node.input(1):
        entries = at.entries_of(node, 1)
        if entries is None:
            raise RuleError("the sizes of the parts depend on the input")
        for i, entry in enumerate(entries):
            if not at.follow(node, entry, block.rows(axis)[ends[i] : ends[i + 1]]):
                raise RuleError("the sizes of the parts are computed in a way that does not follow the width")
        return
    if where == 1 or "split" not in node.attributes:
        at.defaults[(node.index, where)] = Default(sizes, "num_outputs" if where == 1 else "")
    for i in range(len(sizes)):
        at.count(node, where, i, block.rows(axis)[ends[i] : ends[i + 1]])
