"""Where a graph decides, two sums in another order may decide differently, and equal models then differ by whole steps.

A decision is an operator whose output jumps while its input does not: a comparison, an arg-max, a rounding. Both
models are compared up to their decisions; after these, both are handed what the masked original has decided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from bocr_onnx.graph import FLOATING, Array, ModelGraph, Node, with_given, with_outputs
from bocr_onnx.groups import GroupIndex
from bocr_onnx.slimming.plan import Mask, kept_positions

WHOLE = frozenset(
    "ArgMax ArgMin Ceil Equal Floor Greater GreaterOrEqual Hardmax Less LessOrEqual NonMaxSuppression NonZero Round "
    "Sign DynamicQuantizeLinear QuantizeLinear Unique".split()
)
"""Operators all of whose outputs jump."""

POSITIONS = frozenset({"MaxPool", "TopK"})
"""Operators whose second output says where the first was found."""

Run = Callable[[ModelProto, Mapping[str, Array]], list[Array]]
"""Runs a model on inputs by name and returns its outputs; evaluation.session.run_once is one."""


def decisions(graph: ModelGraph) -> dict[str, tuple[str, ...]]:
    """Returns the tensors that are decided, each with the computed floating-point tensors that decide it.

    Example:
        >>> import onnx
        >>> from bocr_onnx.graph import from_proto
        >>> proto = onnx.parser.parse_model('''
        ... <ir_version: 8, opset_import: ["" : 17]>
        ... peaks (float[1, 1, 4, 4] x) => (float[1, 1, 4, 4] y) {
        ...     p = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x)
        ...     e = Equal(p, x)  c = Cast <to = 1> (e)  y = Mul(x, c) }''')
        >>> decisions(from_proto(proto))
        {'e': ('p', 'x')}
    """
    found: dict[str, tuple[str, ...]] = {}
    for node in graph.nodes:
        inputs = tuple(n for n in node.inputs if _is_measured(graph, n))
        if inputs:
            found.update((name, inputs) for name in _decided(graph, node))
    return found


def _is_measured(graph: ModelGraph, name: str) -> bool:
    """Returns whether a tensor holds floating-point numbers that depend on the inputs, not on their shapes alone."""
    known = graph.constant(name) is not None or name in graph.values
    return bool(name) and graph.dtypes.get(name) in FLOATING and not known


def _decided(graph: ModelGraph, node: Node) -> tuple[str, ...]:
    if node.domain:
        return ()
    names = node.outputs if node.op in WHOLE else node.outputs[1:] if node.op in POSITIONS else ()
    if node.op in ("Cast", "CastLike") and graph.dtypes.get(node.outputs[0], TensorProto.FLOAT) not in FLOATING:
        names = node.outputs
    return tuple(name for name in names if name)


def hand_over(
    index: GroupIndex,
    mask: Mask,
    models: tuple[ModelProto, ModelProto],
    feeds: Mapping[str, Array],
    run: Run,
) -> tuple[tuple[ModelProto, ModelProto], tuple[dict[str, Array], dict[str, Array]]] | None:
    """Returns both models without their decisions, and inputs in which the first's decisions are given.

    Args:
        index: Groups of the model.
        mask: Which channels stay.
        models: The masked original and the slim model.
        feeds: Inputs of both.
        run: Runs a model.

    Returns:
        Models that also output what decides, and the inputs of each; None where the graph decides nothing, or the
        slim model in another way.
    """
    graph = index.graph
    found = decisions(graph)
    masked, slim = models
    if not found or not _decide_alike(models, found):
        return None
    before = [n for n in dict.fromkeys(n for names in found.values() for n in names) if n not in graph.inputs]
    decided = [name for name in found if name in {o for node in masked.graph.node for o in node.output}]
    values = dict(zip(decided, _last(run(with_outputs(masked, decided), feeds), masked, decided), strict=True))
    kept = {name: keep(index, mask, name, value) for name, value in values.items()}
    made = tuple(
        with_given(with_outputs(model, [n for n in before if n not in values]), given)
        for model, given in ((masked, values), (slim, kept))
    )
    return (made[0], made[1]), ({**feeds, **values}, {**feeds, **kept})


def _decide_alike(models: tuple[ModelProto, ModelProto], decided: Mapping[str, tuple[str, ...]]) -> bool:
    """Returns whether both models make what is decided by the same operators from the same tensors."""
    masked, slim = ({name: node for node in model.graph.node for name in node.output} for model in models)
    return all(
        name in slim and _described(masked[name], inputs) == _described(slim[name], inputs)
        for name, inputs in decided.items()
        if name in masked
    )


def _described(node: NodeProto, inputs: tuple[str, ...]) -> tuple[object, ...]:
    attributes = sorted((a.name, a.SerializeToString(deterministic=True)) for a in node.attribute)
    return node.op_type, node.domain, attributes, [name for name in node.input if name in inputs]


def _last(outputs: list[Array], model: ModelProto, names: list[str]) -> list[Array]:
    """Returns the named ones of all outputs of a model that was made to output them too."""
    own = [o.name for o in model.graph.output]
    found = dict(zip([*own, *(n for n in names if n not in own)], outputs, strict=True))
    return [found[name] for name in names]


def keep(index: GroupIndex, mask: Mask, name: str, value: Array) -> Array:
    """Returns a tensor of the original without the channels that the slim model's has lost."""
    for axis, channels in index.axes.get(name, {}).items():
        if isinstance(value, np.ndarray) and axis < value.ndim and value.shape[axis] == len(channels):
            value = np.take(value, kept_positions(channels, mask), axis=axis)
    return value
