"""Sampling over space, and cutting its border off (Crop), works channel by channel on the axes after the second.

    y[n, c, q] = pool over p in window(q) of x[n, c, p]

The indices of MaxPool number the entries of x, channels included: i = (n * C + c) * P + p. MaxUnpool writes to them in
a volume of its own, so that they say the same of fewer channels where both volumes have the same channels in the same
order, and P entries in each.
"""

from __future__ import annotations

import math

from bocr_onnx.graph import Node
from bocr_onnx.groups.labels import Labeller
from bocr_onnx.groups.records import Block, RuleError
from bocr_onnx.groups.rules.meeting import Term, meet
from bocr_onnx.groups.rules.registry import rule


@rule("QLinearAveragePool", "QLinearGlobalAveragePool", domain="com.microsoft")
@rule("AveragePool", "MaxPool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "Crop")
def pooling(node: Node, at: Labeller) -> None:
    """Passes the labels of the first two axes."""
    if node.attributes.get("channels_last", 0):
        raise RuleError("the channels are taken to be the last axis")
    blocks = _outer(node, at, 0)
    at.emit(node.outputs[0], blocks)
    for indices in filter(None, node.outputs[1:]):
        if not _only_unpooled(at, indices):
            raise RuleError("the indices of MaxPool count channels")
        at.emit(indices, blocks)


def _only_unpooled(at: Labeller, indices: str) -> bool:
    """Returns whether indices of maxima go nowhere but to MaxUnpool."""
    if indices in at.graph.outputs or indices in at.captured:
        return False
    for index, position in at.graph.readers.get(indices, ()):
        reader = at.graph.nodes[index]
        passes = reader.op == "Identity" and _only_unpooled(at, reader.outputs[0])
        if not passes and (reader.op, position) != ("MaxUnpool", 1):
            return False
    return True


@rule("MaxUnpool")
def unpooling(node: Node, at: Labeller) -> None:
    """Ties the channels of what is unpooled to those whose maxima were taken."""
    blocks = _outer(node, at, 0) + _outer(node, at, 1)
    if not blocks:
        return
    _check_volumes(node, at)
    axes = tuple(range(len(at.shape(node.inputs[0]))))
    made: list[Block] = meet(node, at, [Term(0, axes), Term(1, axes)])
    if node.input(2):
        made = _with_shape(node, at, made)
    at.emit(node.outputs[0], made)


def _check_volumes(node: Node, at: Labeller) -> None:
    """Checks that the indices are those of a MaxPool, whose input has as many entries in each channel."""
    indices = node.inputs[1]
    while (maker := at.graph.producer.get(indices)) is not None and at.graph.nodes[maker].op == "Identity":
        indices = at.graph.nodes[maker].inputs[0]
    pool = None if maker is None else at.graph.nodes[maker]
    if pool is None or pool.op != "MaxPool":
        raise RuleError("its indices are not those of a MaxPool")
    for shapes in (at.graph.shapes, at.graph.other_shapes):
        before, after = shapes.get(pool.inputs[0]), shapes.get(node.outputs[0])
        if before is None or after is None or math.prod(before[2:]) != math.prod(after[2:]):
            raise RuleError("it unpools to a size that is not, or not always, the one before the MaxPool")


def _with_shape(node: Node, at: Labeller, blocks: list[Block]) -> list[Block]:
    """Makes the output shape follow the channels; freezes them where it cannot."""
    shape = at.entries_of(node, 2)
    if shape is None:
        raise RuleError("the size depends on the input")
    reason = "the size of MaxUnpool is computed in a way that does not follow the width"
    made = []
    for block in blocks:
        stuck = {a for a in block.axes if not at.follow(node, shape[a], block.rows(a))}
        kept = at.squash(node, block, stuck, reason)
        made += [] if kept is None else [kept]
    labelled = {axis for block in made for axis in block.axes}
    for axis, entry in enumerate(shape):
        if axis not in labelled:
            at.freeze_entry(node, entry)
    return made


@rule("GridSample", "RoiAlign", "MaxRoiPool")
def sampled(node: Node, at: Labeller) -> None:
    """Passes the labels of axis 1; where to look is not a channel."""
    for name in node.inputs[1:]:
        if at.read(name):
            raise RuleError("the channels say where to sample")
    for block in at.read(node.inputs[0]):
        if 0 in block.axes:
            raise RuleError("the channels lie on the batch axis")
    at.emit(node.outputs[0], _outer(node, at, 0))


def _outer(node: Node, at: Labeller, position: int) -> list[Block]:
    """Returns the blocks of an input without the axes after the second."""
    reason = "the channels lie on an axis that is pooled"
    found = (at.squash(node, b, {a for a in b.axes if a > 1}, reason) for b in at.read(node.inputs[position]))
    return [b for b in found if b is not None]
