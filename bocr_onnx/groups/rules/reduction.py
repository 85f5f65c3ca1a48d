"""A reduction removes axes or leaves them with one entry; labels of the other axes pass.

y[n, c] = reduce over p of x[n, c, p]       channels stay apart
y[n, p] = reduce over c of x[n, c, p]       channels mix: they are frozen
"""

from __future__ import annotations

from bocr_onnx.graph import Node
from bocr_onnx.groups.labels import Labeller
from bocr_onnx.groups.rules.registry import rule

REDUCTIONS = (
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare"
).split()


@rule(*REDUCTIONS)
def reduce(node: Node, at: Labeller) -> None:
    """Carries labels past the reduced axes."""
    shape = at.shape(node.inputs[0])
    reduced = _reduced_axes(node, at, len(shape)) if shape is not None else None
    if reduced is None:
        at.freeze_inputs(node, "a shape or the reduced axes are unknown")
        return
    keep = bool(node.attributes.get("keepdims", 1))
    out = {}
    for axis, labels in at.read(node.inputs[0]).items():
        if axis in reduced:
            at.freeze(node, labels, f"{node.op} mixes the channels")
        else:
            out[axis if keep else axis - sum(r < axis for r in reduced)] = labels
    at.emit(node.outputs[0], out)


@rule("ArgMax", "ArgMin")
def arg(node: Node, at: Labeller) -> None:
    """As a reduction over one axis."""
    shape = at.shape(node.inputs[0])
    if shape is None:
        at.freeze_inputs(node, "a shape is unknown")
        return
    reduced = int(node.attributes.get("axis", 0)) % len(shape)
    keep = bool(node.attributes.get("keepdims", 1))
    out = {}
    for axis, labels in at.read(node.inputs[0]).items():
        if axis == reduced:
            at.freeze(node, labels, f"{node.op} compares the channels")
        else:
            out[axis if keep or axis < reduced else axis - 1] = labels
    at.emit(node.outputs[0], out)


def _reduced_axes(node: Node, at: Labeller, rank: int) -> set[int] | None:
    axes = node.attributes.get("axes")
    if axes is None and node.input(1):
        found = at.constant(node.input(1))
        if found is None:
            return None
        axes = found.reshape(-1).tolist()
    if not axes:
        return set() if node.attributes.get("noop_with_empty_axes", 0) else set(range(rank))
    return {int(axis) % rank for axis in axes}
