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
from bocr_onnx.groups.rules.shape import width_labels


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
    if axes and (before is None or after is None or math.prod(before) != math.prod(after) or 0 in before):
        at.freeze_inputs(node, "a shape is unknown")
        axes = {}
    out: Axes = {}
    for axis, labels in axes.items():
        assert before is not None
        assert after is not None
        landed = _carry(axis, labels, before, after)
        if landed is None or landed[0] in out:
            at.freeze(node, labels, f"{node.op} from {before} to {after} splits or mixes the channels")
        elif node.op != "Reshape" or _follow_target(node, at, axis, *landed):
            out[landed[0]] = landed[1]
    _freeze_other_widths(node, at, out)
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
    target = at.constant(source)
    if target is not None:
        if int(target[new]) > 0 or (int(target[new]) == 0 and new != axis):
            at.count(node, 1, new, labels)
        return True
    entries = _entries(source, at)
    if new < len(entries):
        concat, position, within = entries[new]
        value = at.constant(concat.inputs[position])
        if value is not None and (value[within] != 0 or new == axis):
            if value[within] > 0:
                at.count(concat, position, within, labels)
            return True
        counted = width_labels(concat.inputs[position], at) if value is None else None
        if counted is not None and len(counted) == len(labels):
            at.join(counted, labels)
            return True
    at.freeze(node, labels, "the target shape is computed in a way that does not follow the width")
    return False


def _freeze_other_widths(node: Node, at: Labeller, landed: Axes) -> None:
    """Freezes channels that the target shape counts where no labels have landed."""
    index = at.graph.producer.get(node.input(1))
    if index is None or at.graph.nodes[index].op != "Concat":
        return
    entry_of = {position: entry for entry, (_, position, _) in enumerate(_entries(node.input(1), at))}
    for position, piece in enumerate(at.graph.nodes[index].inputs):
        counted = width_labels(piece, at)
        if counted is not None and entry_of.get(position) not in landed:
            at.freeze(node, counted, "their number is part of a target shape on whose axis they do not lie")


def _entries(name: str, at: Labeller) -> list[tuple[Node, int, int]]:
    """Returns what holds each entry of a shape: (Concat, its input, entry of that); empty where it is not known."""
    index = at.graph.producer.get(name)
    if index is None or at.graph.nodes[index].op != "Concat":
        return []
    concat = at.graph.nodes[index]
    shapes = [at.shape(piece) for piece in concat.inputs]
    if any(s is None or len(s) != 1 for s in shapes):
        return []
    return [(concat, i, k) for i, s in enumerate(shapes) for k in range((s or (0,))[0])]


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
