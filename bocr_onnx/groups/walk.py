"""The walk: every node's rule is applied in topological order, and what it cannot carry is frozen."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from bocr_onnx.graph import ModelGraph, Node, Operand, weight_positions
from bocr_onnx.groups import rules
from bocr_onnx.groups.labels import Labeller
from bocr_onnx.groups.records import RuleError
from bocr_onnx.groups.rules.sizing import begins_a_state

CONTRIB = "com.microsoft"
"""What the names of ONNX Runtime's own domains begin with."""

MAX_ENTRIES = 64
"""Longer integer tensors are not shapes."""

SIZED = frozenset({"ConstantOfShape", "Expand"})
"""Operators whose constant sizes may follow a recurrent operator, even where shapes alone say all they make."""


def carry_labels(graph: ModelGraph) -> Labeller:
    """Returns what the rules have written down for all nodes of a graph."""
    at = Labeller(graph)
    for node in graph.nodes:
        outputs = [name for name in node.outputs if name]
        if outputs and all(graph.constant(name) is not None for name in outputs):
            _trace(node, at)
            continue
        before = at.n_labels
        try:
            _apply_rule(node, at)
        except (
            ArithmeticError,
            LookupError,
            MemoryError,
            TypeError,
            ValueError,
        ) as error:  # an untrusted file may say anything
            reason = str(error) if isinstance(error, RuleError) else "its attributes do not fit its inputs"
            at.freeze_inputs(node, reason)
            at.freeze(node, np.arange(before, at.n_labels), "")
        for position, name in enumerate(node.inputs):
            if graph.constant(name) is not None and at.counts(name):
                at.pins.add((node.index, position))
            elif (node.index, position) not in at.taken:
                at.freeze_widths(node, name)
    for name in graph.outputs:
        maker = graph.nodes[graph.producer[name]] if name in graph.producer else graph.nodes[-1]
        for block in at.read(name):
            at.freeze(maker, block.labels, f"they are the model's output {name!r}")
        at.freeze_widths(maker, name)
    _tie_shared_weights(graph, at)
    _keep_shared_quantized(graph, at)
    return at


def _trace(node: Node, at: Labeller) -> None:
    """Remembers which constants the model computes from widths: whoever reads one is pinned to its value."""
    counted = node.op == "Shape" and bool(at.read(node.inputs[0]))
    if not counted and not any(at.counts(name) for name in node.inputs):
        return
    try:
        compute = rules.find_arithmetic(node.domain, node.op)
        if compute is None:
            raise RuleError
        at.entries[node.outputs[0]] = compute(node, at)
    except (ArithmeticError, LookupError, TypeError, ValueError):
        widths = [e for name in node.inputs for e in at.entries.get(name, ()) if e.width is not None]
        at.entries.update({name: tuple(widths) for name in node.outputs if name})


def _apply_rule(node: Node, at: Labeller) -> None:
    values = [at.graph.values.get(name) for name in node.outputs if name]
    if values and all(v is not None and v.dtype.kind in "iub" and v.size <= MAX_ENTRIES for v in values):
        compute = rules.find_arithmetic(node.domain, node.op)
        if compute is not None:
            at.entries[node.outputs[0]] = compute(node, at)
            return
    told = values and values[0] is not None and not any(at.read(n) or at.counts(n) for n in node.inputs)
    if told and not (node.op in SIZED and begins_a_state(node, at)):
        return
    rule = rules.find_rule(node.domain, node.op, at.graph.opset)
    if node.captures:
        uncounted = "" if node.op == "If" else ", and what its body costs is not counted"
        raise RuleError(f"a subgraph reads the channels{uncounted}")
    if rule is None:
        own = "; prune the file before ONNX Runtime has optimized it" if node.domain.startswith(CONTRIB) else ""
        raise RuleError(f"operator {node.domain or 'ai.onnx'}.{node.op} has no rule{own}")
    rule(node, at)


def _tie_shared_weights(graph: ModelGraph, at: Labeller) -> None:
    """Joins the labels of a weight that several operators share, so that it stays one tensor."""
    by_name: dict[str, list[Operand]] = defaultdict(list)
    for operand in at.slices:
        node = graph.nodes[operand[0]]
        if operand[1] in weight_positions(node) and graph.constants[node.inputs[operand[1]]].ndim > 1:
            by_name[node.inputs[operand[1]]].append(operand)
    for name, operands in by_name.items():
        for other in operands[1:]:
            for axis in range(graph.constants[name].ndim):
                first, labels = at.slices[operands[0]].get(axis), at.slices[other].get(axis)
                if first is not None and labels is not None:
                    at.join(first, labels)
                elif first is not None or labels is not None:
                    only = first if first is not None else labels
                    assert only is not None
                    at.freeze(graph.nodes[other[0]], only, f"weight {name!r} is shared with a fixed reader")


def _keep_shared_quantized(graph: ModelGraph, at: Labeller) -> None:
    """Freezes quantized constants of which a reader cannot be cut: they are stored once."""
    for (index, position), axes in list(at.slices.items()):
        node = graph.nodes[index]
        if position or graph.rounded(node.outputs[0]) is None or graph.constant(node.outputs[0]) is None:
            continue
        for reader in graph.readers.get(node.outputs[0], ()):
            for axis, labels in axes.items():
                if axis not in at.slices.get(reader, {}):
                    other = graph.nodes[reader[0]]
                    at.freeze(other, labels, f"quantized constant {node.inputs[0]!r} is shared with a fixed reader")
