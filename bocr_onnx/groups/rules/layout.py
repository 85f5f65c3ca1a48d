"""Layout operators move channels without mixing them.

The operator is applied to an integer tensor that holds the labels, and the result is read back: an axis carries
labels where every slice across it holds one label only.

    Transpose, Squeeze, Unsqueeze      axes are renumbered
    Reshape, Flatten                   by carrying: (N, C, H, W) -> (N, C*H*W) repeats every label H*W times
    Concat                             labels are laid end to end on the joined axis and meet on the others
"""

from __future__ import annotations

import math

import numpy as np

from bocr_onnx.graph import Node
from bocr_onnx.groups.labels import Axes, Labeller, Labels
from bocr_onnx.groups.rules.registry import rule


@rule("Transpose")
def transpose(node: Node, at: Labeller) -> None:
    """Permutes the labelled axes."""
    shape = at.shape(node.inputs[0])
    if shape is None:
        at.freeze_inputs(node, "a shape is unknown")
        return
    order = node.attributes.get("perm") or list(range(len(shape)))[::-1]
    axes = at.read(node.inputs[0])
    at.emit(node.outputs[0], {new: axes[old] for new, old in enumerate(order) if old in axes})


@rule("Squeeze", "Unsqueeze", "Flatten", "Reshape")
def reshape(node: Node, at: Labeller) -> None:
    """Carries labels to the axes they lie on afterwards."""
    before, after = at.shape(node.inputs[0]), at.shape(node.outputs[0])
    axes = at.read(node.inputs[0])
    if not axes:
        return
    if before is None or after is None or math.prod(before) != math.prod(after) or 0 in before:
        at.freeze_inputs(node, "a shape is unknown")
        return
    out: Axes = {}
    for axis, labels in axes.items():
        landed = _carry(axis, labels, before, after)
        if landed is None or landed[0] in out:
            at.freeze(node, labels, f"{node.op} from {before} to {after} splits or mixes the channels")
        elif node.op != "Reshape" or _follow_target(node, at, axis, *landed):
            out[landed[0]] = landed[1]
    at.emit(node.outputs[0], out)


def _carry(axis: int, labels: Labels, before: tuple[int, ...], after: tuple[int, ...]) -> tuple[int, Labels] | None:
    """Returns the axis of the new shape that carries the labels, and the labels along it.

    Element `i` of the flat tensor holds channel `(i // inner) % n`, and a new axis of stride `s` and size `m` has
    coordinate `(i // s) % m`. The coordinate fixes the channel where `s` divides `inner` and `s * m` is a
    multiple of `n * inner`.
    """
    inner = math.prod(before[axis + 1 :])
    period = inner * len(labels)
    stride = 1
    for new in range(len(after) - 1, -1, -1):
        size = after[new]
        if size > 1 and inner % stride == 0 and (stride * size) % period == 0:
            return new, np.tile(np.repeat(labels, inner // stride), stride * size // period)
        stride *= size
    return None


def _follow_target(node: Node, at: Labeller, axis: int, new: int, labels: Labels) -> bool:
    """Makes the target shape follow the kept width; freezes the channels where it cannot."""
    source = node.input(1)
    if not source:  # opset 1 to 4 keep the shape in an attribute
        at.freeze(node, labels, "the target shape lies in an attribute")
        return False
    target = at.constant(source)
    if target is not None:
        if int(target[new]) > 0 or (int(target[new]) == 0 and new != axis):
            at.count(node, 1, new, labels)
        return True
    piece = _piece_of_concat(source, new, at)
    if piece is not None:
        concat, position, value = piece
        if value is None:
            return True
        if value > 0:
            at.count(concat, position, 0, labels)
        if value != 0 or new == axis:
            return True
    at.freeze(node, labels, "the target shape is computed in a way that does not follow the width")
    return False


def _piece_of_concat(name: str, entry: int, at: Labeller) -> tuple[Node, int, int | None] | None:
    """Returns which input of a shape's Concat holds an entry, and its constant value if it is one."""
    index = at.graph.producer.get(name)
    if index is None or at.graph.nodes[index].op != "Concat":
        return None
    concat = at.graph.nodes[index]
    start = 0
    for position, piece in enumerate(concat.inputs):
        shape = at.shape(piece)
        if shape is None or len(shape) != 1:
            return None
        if start <= entry < start + shape[0]:
            value = at.constant(piece)
            if value is None:
                return (concat, position, None) if _is_labelled_width(piece, at) else None
            return (concat, position, int(value[0])) if shape[0] == 1 else None
        start += shape[0]
    return None


def _is_labelled_width(name: str, at: Labeller) -> bool:
    """Returns whether a shape entry is read off a labelled axis by Shape and Gather, and so follows by itself."""
    for _ in range(4):
        index = at.graph.producer.get(name)
        if index is None:
            return False
        node = at.graph.nodes[index]
        if node.op == "Gather":
            position = at.constant(node.inputs[1])
            source = at.graph.producer.get(node.inputs[0])
            if position is None or position.size != 1 or source is None or at.graph.nodes[source].op != "Shape":
                return False
            shaped = at.graph.nodes[source].inputs[0]
            rank = len(at.shape(shaped) or ())
            return rank > 0 and int(position.reshape(-1)[0]) % rank in at.read(shaped)
        if node.op not in ("Unsqueeze", "Squeeze", "Cast", "Identity", "Reshape"):
            return False
        name = node.inputs[0]
    return False


@rule("Concat")
def concat(node: Node, at: Labeller) -> None:
    """Lays labels end to end on the joined axis and joins them on the others."""
    shape = at.shape(node.outputs[0])
    shapes = [at.shape(name) for name in node.inputs]
    if shape is None or any(s is None for s in shapes):
        at.freeze_inputs(node, "a shape is unknown")
        return
    joined = int(node.attributes.get("axis", 1)) % max(len(shape), 1)
    out: Axes = {}
    if any(joined in at.read(name) for name in node.inputs):
        parts = [_along(node, at, i, joined, (s or ())[joined]) for i, s in enumerate(shapes)]
        out[joined] = np.concatenate(parts)
    for axis in {a for name in node.inputs for a in at.read(name)} - {joined}:
        arrays = [at.read(name)[axis] for name in node.inputs if axis in at.read(name)]
        for other in arrays[1:]:
            at.join(arrays[0], other)
        for position, name in enumerate(node.inputs):
            if at.constant(name) is not None:
                at.cut((node.index, position), axis, arrays[0])
            elif axis not in at.read(name):
                at.freeze(node, arrays[0], f"it lies beside {name!r}, whose channels cannot be cut")
        out[axis] = arrays[0]
    at.emit(node.outputs[0], out)


def _along(node: Node, at: Labeller, position: int, axis: int, n: int) -> Labels:
    name = node.inputs[position]
    known = at.read(name).get(axis)
    if known is not None:
        return known
    made = at.fresh(n)
    if at.constant(name) is not None:
        at.cut((node.index, position), axis, made)
    else:
        at.freeze(node, made, "")
    return made
