"""A node of the file becomes a record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import onnx
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, numpy_helper

from bocr_onnx.graph.model import Array, Node


def named(protos: Sequence[NodeProto]) -> Iterator[Node]:
    """Yields the records of nodes, each with a name of its own."""
    count = Counter(p.name for p in protos)
    for index, proto in enumerate(protos):
        name = proto.name
        if not name or count[name] > 1:
            name = f"{proto.op_type}_{index}"
            while name in count:
                name += "_"
        yield Node(
            index=index,
            name=name,
            op=proto.op_type,
            domain="" if proto.domain == "ai.onnx" else proto.domain,
            inputs=tuple(proto.input),
            outputs=tuple(proto.output),
            attributes={a.name: value_of(a) for a in proto.attribute if not subgraphs(a)},
            captures=captures(proto),
        )


def value_of(attribute: AttributeProto) -> Any:
    """Returns the value of an attribute as a Python or numpy object."""
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    return list(value) if attribute.type == AttributeProto.INTS else value


def captures(node: NodeProto) -> tuple[str, ...]:
    """Returns the outer tensors that the subgraphs of a node read."""
    graphs = [graph for attribute in node.attribute for graph in subgraphs(attribute)]
    return tuple(sorted({name for graph in graphs for name in outer_reads(graph)}))


def outer_reads(graph: GraphProto) -> tuple[str, ...]:
    """Returns the tensors that a subgraph reads and does not make."""
    own = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    own |= {name for node in graph.node for name in node.output}
    read = {name for node in graph.node for name in (*node.input, *captures(node))} | {o.name for o in graph.output}
    return tuple(sorted(read - own - {""}))


def subgraphs(attribute: AttributeProto) -> list[GraphProto]:
    """Returns the subgraphs that an attribute holds."""
    if attribute.type == AttributeProto.GRAPH:
        return [attribute.g]
    return list(attribute.graphs) if attribute.type == AttributeProto.GRAPHS else []


def branches_left(node: NodeProto, condition: Array | None) -> list[GraphProto]:
    """Returns the branches of an If that its condition leaves: both where it is not known."""
    bodies = {a.name: a.g for a in node.attribute if a.type == AttributeProto.GRAPH}
    if condition is None or condition.size != 1:
        return list(bodies.values())
    taken = "then_branch" if condition.item() else "else_branch"
    return [body for name, body in bodies.items() if name == taken]


def stored_in(attribute: AttributeProto) -> Iterator[TensorProto]:
    """Yields the constants that the subgraphs of an attribute hold."""
    for graph in subgraphs(attribute):
        yield from graph.initializer
        for node in graph.node:
            for inner in node.attribute:
                if node.op_type == "Constant" and inner.type == AttributeProto.TENSOR:
                    yield inner.t
                yield from stored_in(inner)
