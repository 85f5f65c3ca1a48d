"""A reduction removes axes or leaves them with one entry; labels of the other axes pass.

y[n, c] = reduce over p of x[n, c, p]       channels stay apart
y[n, p] = reduce over c of x[n, c, p]       channels mix: they are frozen
"""

from __future__ import annotations

from bocr_onnx.graph import Node
from bocr_onnx.groups.labels import Labeller
from bocr_onnx.groups.records import RuleError
from bocr_onnx.groups.rules.registry import rule

REDUCTIONS = (
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare"
).split()

ORDERING = frozenset({"ArgMax", "ArgMin", "TopK"})


@rule(*REDUCTIONS)
def reduce(node: Node, at: Labeller) -> None:
    """Carries labels past the reduced axes."""
    _pass_others(node, at, _reduced_axes(node, at), keep=bool(node.attributes.get("keepdims", 1)))


@rule("ArgMax", "ArgMin")
def arg(node: Node, at: Labeller) -> None:
    """As a reduction over one axis."""
    axis = int(node.attributes.get("axis", 0)) % len(at.shape(node.inputs[0]))
    _pass_others(node, at, {axis}, keep=bool(node.attributes.get("keepdims", 1)))


@rule("CumSum", "CumProd", "TopK")
def running(node: Node, at: Labeller) -> None:
    """An axis is summed up or sorted and stays; the others pass."""
    if node.op == "TopK":
        axis = int(node.attributes.get("axis", -1))
    else:
        found = at.constant(node.input(1))
        if found is None:
            raise RuleError("the axis is computed")
        axis = int(found.reshape(-1)[0])
    _pass_others(node, at, {axis % len(at.shape(node.inputs[0]))}, keep=True)


def _pass_others(node: Node, at: Labeller, reduced: set[int], *, keep: bool) -> None:
    rank = len(at.shape(node.inputs[0]))
    where = {a: a if keep else a - sum(r < a for r in reduced) for a in range(rank)}
    reason = f"{node.op} compares the channels" if node.op in ORDERING else f"{node.op} mixes the channels"
    found = [at.squash(node, b, reduced, reason) for b in at.read(node.inputs[0])]
    for name in node.outputs:
        at.emit(name, [b.placed(where) for b in found if b is not None])


def _reduced_axes(node: Node, at: Labeller) -> set[int]:
    rank = len(at.shape(node.inputs[0]))
    axes = node.attributes.get("axes")
    if axes is None and node.input(1):
        found = at.constant(node.input(1))
        if found is None:
            raise RuleError("the reduced axes are computed")
        axes = found.reshape(-1).tolist()
    if not axes:
        return set() if node.attributes.get("noop_with_empty_axes", 0) else set(range(rank))
    return {int(axis) % rank for axis in axes}
