"""Every reader of a dequantized constant gets a DequantizeLinear of its own.

Exporters store equal biases once and hand them on by Identity. A float constant is copied apart where its readers lose
different channels; a quantized one has its numbers in front of a DequantizeLinear, which must be apart first.
"""

from __future__ import annotations

from onnx import GraphProto, ModelProto, NodeProto

from bocr_onnx.graph.edit import sweep


def unshare_dequantized(proto: ModelProto) -> ModelProto:
    """Returns the model, or a copy of it in which no two operators read the same DequantizeLinear of constants."""
    stored = {t.name for t in proto.graph.initializer}
    shared = [n for n in proto.graph.node if _is_stored(n, stored) and len(_reads(proto.graph, n.output[0])) > 1]
    if not shared:
        return proto
    made = ModelProto()
    made.CopyFrom(proto)
    names = {n.output[0] for n in shared}
    copies: dict[str, list[NodeProto]] = {}
    unread: set[str] = set()
    for node in made.graph.node:
        if node.op_type != "DequantizeLinear" or node.output[0] not in names:
            continue
        reads = _reads(made.graph, node.output[0])
        for number, (reader, position) in enumerate(reads):
            unread.add(reader.input[position])
            reader.input[position] = f"{node.output[0]}.{number}" if number else node.output[0]
        copies[node.output[0]] = [_copy(node, number) for number in range(1, len(reads))]
    nodes = [NodeProto.FromString(c.SerializeToString()) for n in made.graph.node for c in (n, *_behind(n, copies))]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    sweep(made.graph, unread - names)
    return made


def _is_stored(node: NodeProto, stored: set[str]) -> bool:
    return node.op_type == "DequantizeLinear" and all(name in stored for name in node.input if name)


def _reads(graph: GraphProto, name: str) -> list[tuple[NodeProto, int]]:
    """Returns who reads a tensor in the end, behind Identity."""
    found = []
    for node in graph.node:
        for position, read in enumerate(node.input):
            if read == name and node.op_type == "Identity":
                found += _reads(graph, node.output[0])
            elif read == name:
                found.append((node, position))
    return found


def _copy(node: NodeProto, number: int) -> NodeProto:
    made = NodeProto()
    made.CopyFrom(node)
    made.output[0] = f"{node.output[0]}.{number}"
    made.name = f"{node.name}.{number}" if node.name else ""
    return made


def _behind(node: NodeProto, copies: dict[str, list[NodeProto]]) -> list[NodeProto]:
    return copies.get(node.output[0], []) if node.output else []
