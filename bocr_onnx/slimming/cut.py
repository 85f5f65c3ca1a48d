"""The cut: every member of a group loses the same channels at once.

It is data applied, not code per operator: `GroupIndex.slices` says along which axes each constant is taken, and
`GroupIndex.slots` which integers (pad amounts, target shapes, group counts) count the channels that stay.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from bocr_onnx.errors import ProofError
from bocr_onnx.graph import Array, Edit, ModelGraph, Operand, apply_edit
from bocr_onnx.groups import EVERY, Channels, GroupIndex, Slot
from bocr_onnx.slimming.plan import Mask, kept_positions
from bocr_onnx.slimming.stored import stored
from bocr_onnx.slimming.taken import cut_operand, take


def cut_edit(index: GroupIndex, mask: Mask, weights: Mapping[Operand, Array] | None = None) -> Edit:
    """Returns what the cut changes.

    Args:
        index: Groups of the model.
        mask: Which channels stay.
        weights: Operands of the slim model that recovery or training has set, already in slim shape.
    """
    graph = index.graph
    operands, attributes = _filled_slots(index, mask)
    for at in index.slices:
        if graph.rounded(graph.nodes[at[0]].input(at[1])) is not None:
            continue  # it is cut where it is stored
        array = operands.get(at, graph.operand(at))
        assert array is not None
        taken = take(index, mask, at, array)
        if taken is not array:
            operands[at] = taken
    operands.update(stored(index, mask, weights or {}))
    return Edit(operands, attributes, _widths(index, mask))


def cut(index: GroupIndex, mask: Mask, weights: Mapping[Operand, Array] | None = None) -> ModelProto:
    """Returns the slim model.

    Args:
        index: Groups of the model.
        mask: Which channels stay, shape `(n_channels,)`.
        weights: Operands to put in place of the cut originals, in slim shape.

    Example:
        >>> import numpy as np, onnx
        >>> from bocr_onnx.graph import from_proto
        >>> from bocr_onnx.groups import build_index
        >>> proto = onnx.parser.parse_model('''
        ... <ir_version: 8, opset_import: ["" : 17]>
        ... tiny (float[N, 3] x) => (float[N, 2] y)
        ... <float[3, 8] a, float[8, 2] b> { h = MatMul(x, a)  r = Relu(h)  y = MatMul(r, b) }''')
        >>> ones = (("a", np.ones((3, 8), np.float32)), ("b", np.ones((8, 2), np.float32)))
        >>> proto.graph.initializer.extend([onnx.numpy_helper.from_array(array, name) for name, array in ones])
        >>> slim = cut(build_index(from_proto(proto)), np.arange(8) < 5)
        >>> [tuple(t.dims) for t in slim.graph.initializer]
        [(3, 5), (5, 2)]
    """
    graph = index.graph
    return apply_edit(graph, cut_edit(index, mask, weights))


def _filled_slots(
    index: GroupIndex, mask: Mask
) -> tuple[dict[Operand, Array], dict[tuple[int, str], int | list[int] | None]]:
    """Returns the operands and attributes whose integers follow what is kept, in their original shape."""
    graph = index.graph
    pins = index.pins if not mask.all() else ()
    operands: dict[Operand, Array] = {at: array for at in pins if (array := graph.operand(at)) is not None}
    attributes: dict[tuple[int, str], int | list[int] | None] = {}
    for slot, rows in index.slots.items():
        stays = _stays(rows, mask)
        if stays.all() and (mask.all() or _integers(index, slot).min(initial=0) >= 0):
            continue
        if isinstance(slot.where, int):
            known = operands.get((slot.node, slot.where))
            array = (_integers(index, slot) if known is None else known).copy()
            operands[(slot.node, slot.where)] = _fill(array, slot.position, stays)
        elif slot.position is None:
            attributes[(slot.node, slot.where)] = int(stays.sum())
        else:
            entries = attributes.get((slot.node, slot.where), _integers(index, slot).tolist())
            assert isinstance(entries, list)
            entries[slot.position] = int(stays.sum())
            attributes[(slot.node, slot.where)] = entries
    for at, default in index.defaults.items():
        if default.replaces and at in operands:
            attributes[(at[0], default.replaces)] = None
    return operands, attributes


def _stays(rows: Channels, mask: Mask) -> npt.NDArray[np.bool_]:
    kept = (rows < 0) | mask[rows] if mask.size else np.ones(rows.shape, dtype=bool)
    return np.asarray(kept.any(axis=1))


def _fill(array: Array, position: int | None, stays: npt.NDArray[np.bool_]) -> Array:
    if position == EVERY:
        before: npt.NDArray[np.int64] = np.cumsum(stays) - stays
        return np.asarray(before[array % len(stays)], dtype=array.dtype)
    assert position is not None
    array.reshape(-1)[position] = stays.sum()
    return array


def _integers(index: GroupIndex, slot: Slot) -> Array:
    """Returns the integers of the original's operand or attribute; negative ones count from the end."""
    graph = index.graph
    default = index.defaults.get((slot.node, slot.where))
    if default is not None:
        return default.value
    if isinstance(slot.where, int):
        array = graph.operand((slot.node, slot.where))
        assert array is not None
        return array
    return np.atleast_1d(graph.nodes[slot.node].attributes.get(slot.where, 1))


def _widths(index: GroupIndex, mask: Mask) -> dict[str, dict[int, int]]:
    graph = index.graph
    widths: dict[str, dict[int, int]] = {}
    carriers = list(index.axes.items())
    carriers += [
        (name, axes)
        for at, axes in index.slices.items()
        if graph.rounded(name := graph.nodes[at[0]].input(at[1])) is not None
    ]
    for name, axes in carriers:
        for axis, channels in axes.items():
            kept = len(kept_positions(channels, mask))
            if kept < len(channels):
                widths.setdefault(name, {})[axis] = kept
    return widths


def widen(index: GroupIndex, mask: Mask, weights: Mapping[Operand, Array]) -> dict[Operand, Array]:
    """Returns slim operands in their original shape, with the original's values where channels were removed.

    An operand that the original does not have (a bias that recovery added) is zero there.
    """
    graph = index.graph
    wide: dict[Operand, Array] = {}
    for at, array in weights.items():
        original = graph.operand(at)
        axes = index.slices.get(at, {})
        if original is None:
            channels = index.slices.get((at[0], 1), {}).get(output_axis(graph, at[0]))
            axes = {} if channels is None else {0: channels}
            original = np.zeros(array.shape if channels is None else len(channels), dtype=array.dtype)
        full = np.array(original, dtype=array.dtype)
        where = [
            kept_positions(axes[axis], mask) if axis in axes else np.arange(size)
            for axis, size in enumerate(full.shape)
        ]
        full[np.ix_(*where)] = array
        wide[at] = full
    return wide


def changed_operands(index: GroupIndex, mask: Mask, slim: ModelGraph) -> dict[Operand, Array]:
    """Returns the constants in which a slim model differs from the plain cut of its original, in slim shape.

    Args:
        index: Groups of the model.
        mask: Which channels stay.
        slim: The slim model; its nodes are matched by what they output.

    Raises:
        ProofError: A constant has another shape than the plan leaves of it.
    """
    graph = index.graph
    by_output = {next(o for o in node.outputs if o): node for node in graph.nodes}
    changed: dict[Operand, Array] = {}
    for node in slim.nodes:
        original = by_output.get(next(o for o in node.outputs if o))
        if original is None or node.op == "Constant":
            continue
        for position, name in enumerate(node.inputs):
            array = slim.constant(name)
            if array is None or array.dtype.kind != "f":
                continue
            at = (original.index, position)
            known = graph.operand(at)
            if known is None and original.input(position):
                continue  # both compute it, and the slim model's is small enough to be folded
            plain = None if known is None else cut_operand(index, mask, at)
            if plain is not None and plain.shape != array.shape:
                raise ProofError(
                    f"{name} of the slim model must have the shape {plain.shape} that the plan leaves of it, "
                    f"got {array.shape}"
                )
            if plain is None or not np.array_equal(plain, array, equal_nan=True):
                changed[at] = array
    return changed


def output_axis(graph: ModelGraph, index: int) -> int:
    """Returns the axis of a weighted node's weight that counts its outputs."""
    node = graph.nodes[index]
    if node.op == "Gemm":
        return 0 if node.attributes.get("transB", 0) else 1
    return 1 if node.op in ("MatMul", "ConvTranspose") else 0
