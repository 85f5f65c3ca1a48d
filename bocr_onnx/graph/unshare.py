"""Every reader of a dequantized constant gets a DequantizeLinear of its own.

Exporters store equal biases once and hand them on by Identity. A float constant is copied apart where its readers lose
different channels; a quantized one has its numbers in front of a DequantizeLinear, which must be apart first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx import GraphProto, ModelProto, NodeProto

from bocr_onnx.graph.edit import sweep

Read = tuple[NodeProto, int]
"""A node and the number of its input."""


def unshare_dequantized(proto: ModelProto) -> ModelProto:
    """Returns the model, or a copy of it in which no two operators read the same DequantizeLinear of constants."""
    stored = {t.name for t in proto.graph.initializer}
    readers = _readers(proto.graph)
    shared = {n.output[0] for n in proto.graph.node if _is_stored(n, stored) and len(_reads(readers, n.output[0])) > 1}
    if not shared:
        return proto
    made = ModelProto()
    made.CopyFrom(proto)
    readers = _readers(made.graph)
    nodes: list[NodeProto] = []
    unread: set[str] = set()
    for node in made.graph.node:
        nodes.append(node)
        if not node.output or node.output[0] not in shared:
            continue
        for number, (reader, position) in enumerate(_reads(readers, node.output[0])):
            unread.add(reader.input[position])
            reader.input[position] = f"{node.output[0]}.{number}" if number else node.output[0]
            if number:
                nodes.append(_copy(node, number))
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del made.graph.node[:]
    made.graph.node.extend(copies)
    sweep(made.graph, unread - shared)
    return made


def _is_stored(node: NodeProto, stored: set[str]) -> bool:
    return node.op_type == "DequantizeLinear" and all(name in stored for name in node.input if name)


def _readers(graph: GraphProto) -> dict[str, list[Read]]:
    found: dict[str, list[Read]] = {}
    for node in graph.node:
        for position, name in enumerate(node.input):
            found.setdefault(name, []).append((node, position))
    return found


def _reads(readers: Mapping[str, Sequence[Read]], name: str) -> list[Read]:
    """Returns who reads a tensor in the end, after Identity."""
    found: list[Read] = []
    for node, position in readers.get(name, ()):
        found += _reads(readers, node.output[0]) if node.op_type == "Identity" else [(node, position)]
    return found


def _copy(node: NodeProto, number: int) -> NodeProto:
    made = NodeProto()
    made.CopyFrom(node)
    made.output[0] = f"{node.output[0]}.{number}"
    made.name = f"{node.name}.{number}" if node.name else ""
    return made
