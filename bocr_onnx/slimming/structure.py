"""The structure of a model: everything a cut depends on, and nothing that training or a new export changes.

Counted: width and members of channel groups, operators with version, attributes and wiring, element types and shapes of
constants, the values of those integer constants that decide shapes and indices, names and shapes of inputs and
outputs. Not counted: weights, the integers that quantized weights are stored as, doc strings, metadata, the producer,
names of nodes and tensors, and whether equal constants are stored once or several times: exporters number nodes by a
counter that depends on how many constants happen to be equal.
"""

from __future__ import annotations

import hashlib
import json
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, NodeProto, SparseTensorProto, TensorProto, numpy_helper

from bocr_onnx.groups import GroupIndex

_DECIDING = frozenset({TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL})
"""Element types of targets, axes, amounts, indices and conditions."""

_QUANTIZED = frozenset({"DequantizeLinear", "QuantizeLinear", "QLinearConv", "QGemm"})
"""Operators whose integer constants are weights."""

_RESIZING = frozenset({"Resize", "Upsample"})
"""Operators whose floating constants decide shapes."""

Stored = TensorProto | SparseTensorProto
Scope = ChainMap[str, str | Stored]
"""Tensor name -> its maker by number, or the constant it is."""


@dataclass(frozen=True, slots=True)
class _Reader:
    """What describes nodes.

    Attributes:
        opsets: Version by domain.
        depth: Number of graphs around the one that is read.
    """

    opsets: Mapping[str, int]
    depth: int = 0

    def graph(self, graph: GraphProto, outer: Scope) -> list[Any]:
        """Returns the operators of a graph and what its outputs are."""
        scope = outer.new_child()
        for number, value in enumerate(graph.input):
            scope[value.name] = f"{self.depth}:input {value.name if not self.depth else number}"
        scope.update({t.name: t for t in graph.initializer})
        scope.update({t.values.name: t for t in graph.sparse_initializer})
        nodes = [node for node in graph.node if not _is_stored(node, scope)]
        for number, node in enumerate(nodes):
            scope.update({name: f"{self.depth}:{number}.{i}" for i, name in enumerate(node.output) if name})
        described = [self._node(node, scope) for node in nodes]
        return [described, [_operand(o.name, "", scope) for o in graph.output]]

    def _node(self, node: NodeProto, scope: Scope) -> list[Any]:
        domain = "" if node.domain == "ai.onnx" else node.domain
        attributes = sorted((a.name, self._attribute(a, scope)) for a in node.attribute)
        operands = [_operand(name, node.op_type, scope) for name in node.input]
        return [domain, node.op_type, self._version(node.op_type, domain), attributes, operands, len(node.output)]

    def _version(self, op: str, domain: str) -> int:
        """Returns since when an operator means what it means: a newer operator set may leave it as it is."""
        known = self.opsets.get(domain, 0)
        try:
            return int(onnx.defs.get_schema(op, known, domain).since_version)
        except onnx.defs.SchemaError:
            return known

    def _attribute(self, attribute: AttributeProto, scope: Scope) -> str:
        value = onnx.helper.get_attribute_value(attribute)
        values = value if isinstance(value, list) else [value]
        return json.dumps([attribute.type, [self._plain(v, scope) for v in values]])

    def _plain(self, value: Any, scope: Scope) -> Any:
        if isinstance(value, GraphProto):
            return _Reader(self.opsets, self.depth + 1).graph(value, scope)
        if isinstance(value, Stored):
            return _constant(value, "")
        if isinstance(value, bytes):
            return value.hex()
        return value if isinstance(value, int | float | str) else value.SerializeToString(deterministic=True).hex()


def structure_digest(index: GroupIndex) -> str:
    """Returns the sha256 of everything a cut of the model depends on, as 64 hexadecimal digits.

    Two files with equal digests can be cut by the same plan. Default values of attributes are not filled in: an
    exporter that begins to write them changes the digest.

    Args:
        index: Groups of the model.

    Example:
        >>> from bocr_onnx.graph import from_proto
        >>> from bocr_onnx.groups import build_index
        >>> text = '<ir_version: 8, opset_import: ["" : 17]> tiny (float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }'
        >>> proto, stamped = onnx.parser.parse_model(text), onnx.parser.parse_model(text)
        >>> stamped.doc_string = "build 4711"
        >>> one, other = from_proto(proto), from_proto(stamped)
        >>> one.sha256 == other.sha256
        False
        >>> structure_digest(build_index(one)) == structure_digest(build_index(other))
        True
    """
    graph = index.graph
    opsets = {o.domain: o.version for o in graph.proto.opset_import} | {"": graph.opset}
    record = [
        [[g.n_channels, [[m.axis, m.width] for m in g.members]] for g in index.groups],
        _Reader(opsets).graph(graph.proto.graph, ChainMap()),
        [[info.name, *_declared(info)] for info in graph.proto.graph.input if info.name in graph.inputs],
        [[info.name, *_declared(info)] for info in graph.proto.graph.output],
    ]
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()


def _declared(info: onnx.ValueInfoProto) -> tuple[int, list[int]]:
    """Returns element type and shape as the file declares them, zero for an axis that it leaves open."""
    tensor = info.type.tensor_type
    return tensor.elem_type, [d.dim_value for d in tensor.shape.dim]


def _is_stored(node: NodeProto, scope: Scope) -> bool:
    """Returns whether a node is only another way to store a constant, which is then in the scope."""
    if node.domain not in ("", "ai.onnx") or not node.output:
        return False
    if node.op_type == "Constant":
        scope[node.output[0]] = _of_constant(node)
        return True
    source = scope.get(node.input[0]) if node.op_type == "Identity" and node.input else None
    if isinstance(source, Stored):
        scope[node.output[0]] = source
        return True
    return False


def _of_constant(node: NodeProto) -> Stored:
    value = onnx.helper.get_attribute_value(node.attribute[0])
    if isinstance(value, Stored):
        return value
    kind = node.attribute[0].type
    if kind in (AttributeProto.STRING, AttributeProto.STRINGS):
        return numpy_helper.from_array(np.array(value, dtype=object))
    return numpy_helper.from_array(
        np.array(value, dtype=np.int64 if kind in (AttributeProto.INT, AttributeProto.INTS) else np.float32)
    )


def _operand(name: str, op: str, scope: Scope) -> Any:
    """Returns what an operator reads: a maker by number, a constant, or None where it is omitted."""
    found = scope.get(name) if name else None
    return _constant(found, op) if isinstance(found, Stored) else found


def _constant(stored: Stored, op: str) -> list[Any]:
    """Returns element type, shape and, where an operator's shapes or indices depend on it, the digest of the value."""
    if isinstance(stored, SparseTensorProto):
        return [stored.values.data_type, list(stored.dims)]
    described: list[Any] = [stored.data_type, list(stored.dims)]
    if op in _RESIZING or (stored.data_type in _DECIDING and op not in _QUANTIZED):
        described.append(hashlib.sha256(numpy_helper.to_array(stored).tobytes()).hexdigest())
    return described
