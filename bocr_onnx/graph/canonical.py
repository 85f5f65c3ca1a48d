"""What a file may write in several ways is read in one; `ModelGraph.written` keeps the file as it was.

Identity(weight)              the weight itself: exporters hand equal initializers on, and siamese trunks are tied so
FusedConv, FusedGemm          Conv or Gemm, + z, and the activation: what ONNX Runtime's optimizer saves
DequantizeLinear(constant)    one for every reader (`unshare`)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto

from bocr_onnx.graph.edit import sweep
from bocr_onnx.graph.nodes import captures
from bocr_onnx.graph.unshare import unshare_dequantized

CONTRIB = "com.microsoft"
FUSED = {"FusedConv": "Conv", "FusedGemm": "Gemm"}
ACTIVATIONS = {
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
    "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Clip": ("min", "max"),
    "Elu": ("alpha",),
    "Selu": ("alpha", "gamma"),
    "Softplus": (),
    "Softsign": (),
    "ThresholdedRelu": ("alpha",),
}
"""Activations that are fused -> what their parameters are called, in order."""


def canonical(proto: ModelProto) -> ModelProto:
    """Returns the model as it is read, or a copy in which it is.

    Args:
        proto: The model, without local functions.
    """
    made = _unfused(proto) if any(_is_fused(n) for n in proto.graph.node) else proto
    handed = dict(_handed_on(made.graph))
    return unshare_dequantized(_without(made, handed) if handed else made)


def _copied(proto: ModelProto) -> ModelProto:
    made = ModelProto()
    made.CopyFrom(proto)
    return made


def _handed_on(graph: GraphProto) -> Iterator[tuple[str, str]]:
    """Yields every tensor that is a stored constant after Identity, and that constant."""
    stored = {t.name: t.name for t in graph.initializer}
    kept = {o.name for o in graph.output} | {name for n in graph.node for name in captures(n)}
    for node in graph.node:
        if node.op_type == "Identity" and not node.domain and node.input[0] in stored:
            stored[node.output[0]] = stored[node.input[0]]
            if node.output[0] not in kept:
                yield node.output[0], stored[node.input[0]]


def _without(proto: ModelProto, handed: dict[str, str]) -> ModelProto:
    made = _copied(proto)
    for node in made.graph.node:
        for position, name in enumerate(node.input):
            if name in handed:
                node.input[position] = handed[name]
    sweep(made.graph, set(handed))
    return made


def _is_fused(node: NodeProto) -> bool:
    complete = len(node.input) > 1 and len(node.output) == 1
    known = node.domain == CONTRIB and node.op_type in FUSED
    return known and complete and _activation_of(node) in ("", *ACTIVATIONS)


def _activation_of(node: NodeProto) -> str:
    found = _attribute(node, "activation")
    return "" if found is None else found.s.decode(errors="replace")


def _attribute(node: NodeProto, name: str) -> AttributeProto | None:
    return next((a for a in node.attribute if a.name == name), None)


def _unfused(proto: ModelProto) -> ModelProto:
    made = _copied(proto)
    opset = next((o.version for o in made.opset_import if o.domain in ("", "ai.onnx")), 1)
    taken = {name for node in made.graph.node for name in (*node.input, *node.output)}
    taken |= {item.name for item in (*made.graph.initializer, *made.graph.input)}
    nodes: list[NodeProto] = []
    for node in made.graph.node:
        nodes += _parts(node, opset, made, taken) if _is_fused(node) else [node]
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del made.graph.node[:]
    made.graph.node.extend(copies)
    if not any(node.domain == CONTRIB for node in copies):
        domains = [o for o in made.opset_import if o.domain != CONTRIB]
        del made.opset_import[:]
        made.opset_import.extend(domains)
    return made


def _parts(node: NodeProto, opset: int, made: ModelProto, taken: set[str]) -> list[NodeProto]:
    """Returns the operator, the addition of what is fused in, and the activation; the last has the node's output."""
    op = _activation_of(node)
    added = node.input[3] if node.op_type == "FusedConv" and len(node.input) > 3 else ""
    main = NodeProto()
    main.CopyFrom(node)
    main.domain, main.op_type = "", FUSED[node.op_type]
    del main.attribute[:]
    main.attribute.extend(a for a in node.attribute if not a.name.startswith("activation"))
    del main.input[:]
    main.input.extend(node.input[:3])
    parts, name = [main], node.output[0]
    if added:
        parts.append(onnx.helper.make_node("Add", ["", added], [name], name=f"{node.name}.add" if node.name else ""))
    if op:
        parts.append(_activation(node, op, opset, made, taken))
    for i, (part, following) in enumerate(pairwise(parts)):
        part.output[0] = following.input[0] = _free(f"{name}.{i}", taken)
    return parts


def _free(name: str, taken: set[str]) -> str:
    """Returns a name that nothing has, and takes it."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _activation(node: NodeProto, op: str, opset: int, made: ModelProto, taken: set[str]) -> NodeProto:
    """Returns the activation as a node of its own; its first input is not named yet."""
    values = _parameters(node, op)
    label = f"{node.name}.{op}" if node.name else ""
    if op != "Clip" or opset < 11:
        return onnx.helper.make_node(op, [""], [node.output[0]], name=label, **values)
    names = []
    for key, value in values.items():
        names.append(_free(f"{node.output[0]}.{key}", taken))
        made.graph.initializer.append(onnx.helper.make_tensor(names[-1], onnx.TensorProto.FLOAT, [], [value]))
    return onnx.helper.make_node(op, ["", *names], [node.output[0]], name=label)


def _parameters(node: NodeProto, op: str) -> dict[str, Any]:
    """Returns the parameters of an activation, in a list (FusedConv) or each by itself (FusedGemm)."""
    listed = _attribute(node, "activation_params")
    floats: Sequence[float] = listed.floats if listed is not None else ()
    values = dict(zip(ACTIVATIONS[op], floats, strict=False))
    for name in ACTIVATIONS[op]:
        single = _attribute(node, f"activation_{name}")
        if single is not None:
            values[name] = single.f
    return values
