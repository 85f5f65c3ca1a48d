"""Layout operators move channels without mixing them.

Transpose                                axes are renumbered
Squeeze, Unsqueeze, Flatten, Reshape     labels are carried: (C, H, W) -> (C*H*W) repeats every label H*W times,
                                         (g*c) -> (g, c) spreads them over two axes
DepthToSpace, SpaceToDepth               as the Reshape and Transpose they stand for
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bocr_onnx.graph import Node
from bocr_onnx.groups.carry import Carry, carry
from bocr_onnx.groups.labels import Labeller
from bocr_onnx.groups.records import Block, Entry, RuleError, on
from bocr_onnx.groups.rules.registry import rule


@rule("Transpose")
def transpose(node: Node, at: Labeller) -> None:
    """Permutes the labelled axes."""
    rank = len(at.shape(node.inputs[0]))
    order = node.attributes.get("perm") or list(range(rank))[::-1]
    where = {old: new for new, old in enumerate(order)}
    at.emit(node.outputs[0], [block.placed(where) for block in at.read(node.inputs[0])])


@rule("Squeeze", "Unsqueeze", "Flatten", "Reshape")
def reshape(node: Node, at: Labeller) -> None:
    """Carries labels to the axes they lie on afterwards."""
    blocks = at.read(node.inputs[0])
    if blocks:
        before, after = at.shape(node.inputs[0]), at.shape(node.outputs[0])
        reason = f"{node.op} from {before} to {after} mixes the channels"
        moved = carry(before, after)
        mixed = moved.mixed | _mixed_elsewhere(node, at)
        blocks = tuple(b for b in (at.squash(node, b, mixed, reason) for b in blocks) if b is not None)
        blocks = tuple(new for b in blocks if (new := _kept(node, at, b, moved(_tied(at, b, moved)))) is not None)
        blocks = _disjoint(at, blocks)
    if node.op == "Reshape":
        blocks = _follow_target(node, at, blocks)
    at.emit(node.outputs[0], blocks)


def _mixed_elsewhere(node: Node, at: Labeller) -> frozenset[int]:
    """Returns the axes that the operator mixes at other sizes of the model's inputs."""
    before, after = (at.graph.other_shapes.get(name) for name in (node.inputs[0], node.outputs[0]))
    if before is None or after is None or math.prod(before) != math.prod(after):
        return frozenset()  # unknown there, or a size baked into the target
    return carry(before, after).mixed


def _tied(at: Labeller, block: Block, moved: Carry) -> Block:
    """Returns a block that is tied along the factors that are merged with too large an axis, such as an image's."""
    for factor in moved.crowded(block):
        place = next(i for i, axis in enumerate(block.axes) if factor in moved.before[axis])
        axis = block.axes[place]
        whole = block.labels.reshape(*block.labels.shape[:place], *moved.split(axis), *block.labels.shape[place + 1 :])
        first = whole.take([0], axis=place + moved.before[axis].index(factor))
        labels = np.broadcast_to(first, whole.shape).reshape(block.labels.shape)
        at.join(labels, block.labels)
        block = Block(block.axes, labels)
    return block


def _kept(node: Node, at: Labeller, before: Block, after: Block) -> Block | None:
    if after.axes:
        return after
    at.freeze(node, before.labels, "")  # a single channel lies on no axis of its own
    return None


def _disjoint(at: Labeller, blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Returns blocks no two of which lie on one axis: where they met, the later is frozen by mixing with the former."""
    seen: set[int] = set()
    for block in blocks:
        if seen & set(block.axes):
            raise RuleError("two kinds of channels end up on one axis")
        seen |= set(block.axes)
    return tuple(blocks)


def _follow_target(node: Node, at: Labeller, blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Makes the target shape follow the kept widths; freezes the channels where it cannot."""
    if not blocks and node.input(1) not in at.entries:
        return ()
    target = at.entries_of(node, 1)
    after = at.shape(node.outputs[0])
    if target is None or len(target) != len(after):
        raise RuleError("the target shape depends on the input")
    made = []
    for block in blocks:
        stuck = [axis for axis in block.axes if not _follows(node, at, block, axis, target[axis])]
        reason = "the target shape is computed in a way that does not follow the width"
        free = at.squash(node, block, stuck, reason)
        if free is not None:
            made.append(free)
    labelled = {axis for block in made for axis in block.axes}
    for axis, entry in enumerate(target):
        if axis not in labelled and entry.width is not None and not _is_inferred(entry):
            at.freeze_entry(node, entry)
    return tuple(made)


def _follows(node: Node, at: Labeller, block: Block, axis: int, entry: Entry) -> bool:
    if _is_inferred(entry):
        return True
    if entry.value == 0 and not node.attributes.get("allowzero", 0):
        return any(
            axis in source.axes
            and source.rows(axis).shape == block.rows(axis).shape
            and bool((source.rows(axis) == block.rows(axis)).all())
            for source in at.read(node.inputs[0])
        )
    return at.follow(node, entry, block.rows(axis))


def _is_inferred(entry: Entry) -> bool:
    return entry.value == -1 and entry.width is None


@rule("DepthToSpace")
def depth_to_space(node: Node, at: Labeller) -> None:
    """Ties the channels that become one: the k-th of every c (DCR), or every c consecutive ones (CRD)."""
    size = int(node.attributes["blocksize"]) ** 2
    labels = at.along(node, node.inputs[0], 1, "the channels lie on an axis that is spread over space")
    if labels is None:
        return
    if node.attributes.get("mode", "DCR") == "DCR":
        out = at.collapse(Block((0, 1), labels.reshape(size, -1)), 1)
    else:
        out = at.collapse(Block((0, 1), labels.reshape(-1, size)), 0)
    at.emit(node.outputs[0], [on(1, out)])


@rule("SpaceToDepth")
def space_to_depth(node: Node, at: Labeller) -> None:
    """Repeats the labels, once for every position of the block."""
    size = int(node.attributes["blocksize"]) ** 2
    labels = at.along(node, node.inputs[0], 1, "the channels lie on an axis that is spread over space")
    if labels is not None:
        at.emit(node.outputs[0], [on(1, at.repeated(labels, [size]))])


@rule("Trilu")
def triangle(node: Node, at: Labeller) -> None:
    """Freezes the last two axes, whose entries are compared by position."""
    rank = len(at.shape(node.inputs[0]))
    found = (
        at.squash(node, b, {rank - 2, rank - 1}, "Trilu compares positions", keeps=True)
        for b in at.read(node.inputs[0])
    )
    at.emit(node.outputs[0], [b for b in found if b is not None])
