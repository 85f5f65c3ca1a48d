"""A changed copy of a model: other constants, other integer attributes, nothing else touched.

The copy is made on the protobuf message, not through graphsurgeon's object model, because that one drops what it
has no field for (doc strings and metadata of nodes, quantization annotations, optional types). Graphsurgeon serves
for the throw-away graphs of `bocr_onnx.graph.instrument`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, TensorProto, numpy_helper

from bocr_onnx.graph.model import Array, ModelGraph, Operand

FIRST_IR_WITH_FREE_INITIALIZERS = 4
"""Older files list every initializer among the graph inputs as well."""


@dataclass(frozen=True, slots=True)
class Edit:
    """What changes.

    Attributes:
        operands: New value of a constant where one node reads it; a position after a node's last input adds one.
        attributes: New value of an integer or integer-list attribute, by (node index, name); None removes it.
        widths: New size of a tensor's axis, by tensor and axis, for the shapes that the file declares.
    """

    operands: Mapping[Operand, Array] = field(default_factory=dict)
    attributes: Mapping[tuple[int, str], int | list[int] | None] = field(default_factory=dict)
    widths: Mapping[str, Mapping[int, int]] = field(default_factory=dict)


def apply_edit(graph: ModelGraph, edit: Edit) -> ModelProto:
    """Returns a copy of the model with the edit made.

    A constant that all its readers agree on is replaced under its own name; where they differ (tied or
    deduplicated initializers), or where it is the output of other nodes (Identity, Constant, folded arithmetic),
    the reader gets an initializer of its own. Nodes and initializers that nothing reads any more are removed.

    Args:
        graph: The original.
        edit: The changes. Arrays are cast to the element type they replace.
    """
    proto = ModelProto()
    proto.CopyFrom(graph.proto)
    _drop_wrong_shapes(graph, proto.graph)
    nodes = _nodes_in_order(graph, proto)
    for (index, name), value in edit.attributes.items():
        set_attribute(nodes[index], name, value)
    unread = _rewire(graph, proto.graph, nodes, edit.operands)
    _set_widths(proto.graph, edit.widths)
    if unread:
        sweep(proto.graph, unread)
    return proto


def _nodes_in_order(graph: ModelGraph, proto: ModelProto) -> list[onnx.NodeProto]:
    """Returns the copy's nodes in the order of `graph.nodes`; a node is known by its outputs, which are unique."""
    by_output = {next((o for o in n.output if o), f"?{i}"): n for i, n in enumerate(proto.graph.node)}
    return [by_output[next(o for o in node.outputs if o)] for node in graph.nodes]


def set_attribute(node: onnx.NodeProto, name: str, value: int | list[int] | None) -> None:
    """Sets an integer or integer-list attribute of a node; None removes it."""
    if value is None:
        kept = [a for a in node.attribute if a.name != name]
        del node.attribute[:]
        node.attribute.extend(kept)
        return
    made = onnx.helper.make_attribute(name, value)
    for attribute in node.attribute:
        if attribute.name == name:
            attribute.CopyFrom(made)
            return
    node.attribute.append(made)


def _rewire(
    graph: ModelGraph, target: GraphProto, nodes: list[onnx.NodeProto], operands: Mapping[Operand, Array]
) -> set[str]:
    """Stores the new constants; returns the names that lost a reader."""
    initializers = {t.name: t for t in target.initializer}
    declared = {i.name: i for i in (*target.input, *target.value_info)}
    taken = set(initializers) | set(graph.shapes) | set(graph.producer)
    captured = {name for node in graph.nodes for name in node.captures} | set(graph.outputs)
    by_name: dict[str, list[tuple[Operand, Array]]] = {}
    for at, array in operands.items():
        by_name.setdefault(graph.nodes[at[0]].input(at[1]), []).append((at, array))
    unread: set[str] = set()
    for name, changes in by_name.items():
        first = changes[0][1]
        agree = len(changes) == len(graph.readers.get(name, ())) and name not in captured
        if name in initializers and agree and all(_same(first, a) for _, a in changes[1:]):
            _fill(initializers[name], first)
            if name in declared:
                _set_dims(declared[name], dict(enumerate(first.shape)))
            continue
        unread.add(name)
        _store_apart(graph, target, nodes, changes, taken)
    return unread - {""}


def _store_apart(
    graph: ModelGraph,
    target: GraphProto,
    nodes: list[onnx.NodeProto],
    changes: list[tuple[Operand, Array]],
    taken: set[str],
) -> None:
    stored: list[tuple[str, Array]] = []
    target_needs_inputs = graph.proto.ir_version < FIRST_IR_WITH_FREE_INITIALIZERS
    for (index, position), array in changes:
        source = graph.nodes[index].input(position)
        name = next((n for n, a in stored if source and _same(a, array)), "")
        if not name:
            added = ".bias" if array.dtype.kind == "f" else ".sizes"
            stem = source or f"{graph.nodes[index].name}{added}"
            name = stem if stem not in taken else f"{stem}.slim"
            while name in taken:
                name += "_"
            taken.add(name)
            tensor = target.initializer.add()
            tensor.name = name
            tensor.data_type = _element_type(graph, source, index, array)
            _fill(tensor, array)
            stored.append((name, array))
            if target_needs_inputs:
                info = onnx.helper.make_tensor_value_info(name, tensor.data_type, array.shape)
                target.input.append(info)
        inputs = nodes[index].input
        while len(inputs) <= position:
            inputs.append("")
        inputs[position] = name


def _element_type(graph: ModelGraph, source: str, index: int, array: Array) -> int:
    if source:
        return graph.dtypes[source]
    weight = graph.nodes[index].input(1)
    return graph.dtypes.get(weight, onnx.helper.np_dtype_to_tensor_dtype(array.dtype))


def _same(a: Array, b: Array) -> bool:
    return a is b or (a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))


def _fill(tensor: TensorProto, array: Array) -> None:
    """Replaces the data of a tensor; name, element type, doc string and metadata stay."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    made = numpy_helper.from_array(np.asarray(array, dtype=dtype, order="C"), tensor.name)
    for data in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data"):
        tensor.ClearField(data)
    del tensor.dims[:]
    tensor.dims.extend(made.dims)
    tensor.raw_data = made.raw_data


def _drop_wrong_shapes(graph: ModelGraph, target: GraphProto) -> None:
    """Removes declared shapes of inner tensors that are not theirs: with other widths nothing would hide them."""
    wrong: set[str] = set()
    for info in target.value_info:
        shape = graph.shapes.get(info.name)
        dims = info.type.tensor_type.shape.dim
        if shape is not None and info.type.tensor_type.HasField("shape"):
            same = len(dims) == len(shape) and all(
                d.dim_value == n for d, n in zip(dims, shape, strict=True) if d.HasField("dim_value")
            )
            wrong.update(() if same else (info.name,))
    _drop(target.value_info, wrong)


def _set_widths(target: GraphProto, widths: Mapping[str, Mapping[int, int]]) -> None:
    for info in (*target.value_info, *target.output, *target.input):
        if info.name in widths:
            _set_dims(info, widths[info.name])
    for info in target.value_info:
        for axis in widths.get(info.name, ()):
            dims = info.type.tensor_type.shape.dim
            if axis < len(dims):
                dims[axis].ClearField("dim_param")  # such as 12*batch, of which fewer than 12 are left


def _set_dims(info: onnx.ValueInfoProto, widths: Mapping[int, int]) -> None:
    dims = info.type.tensor_type.shape.dim
    for axis, width in widths.items():
        if axis < len(dims) and dims[axis].HasField("dim_value"):
            dims[axis].dim_value = width


def sweep(target: GraphProto, unread: set[str]) -> None:
    """Removes what the edit left without a reader, and nothing that was dead before."""
    read = _read_counts(target)
    by_output = {o: n for n in target.node for o in n.output if o}
    dead_nodes: list[onnx.NodeProto] = []
    dead_tensors: set[str] = set()
    waiting = [name for name in unread if not read.get(name)]
    while waiting:
        name = waiting.pop()
        dead_tensors.add(name)
        node = by_output.get(name)
        if node is None or any(read.get(o) for o in node.output if o) or node in dead_nodes:
            continue
        dead_nodes.append(node)
        dead_tensors.update(node.output)
        for source in node.input:
            read[source] -= 1
            if source and not read[source]:
                waiting.append(source)
    for node in dead_nodes:
        target.node.remove(node)
    dead_inputs = {t.name for t in target.initializer} & dead_tensors
    _drop(target.input, dead_inputs)
    _drop(target.initializer, dead_tensors)
    _drop(target.value_info, dead_tensors)


def _drop(items: Any, names: set[str]) -> None:
    for item in [i for i in items if i.name in names]:
        items.remove(item)


def _read_counts(graph: GraphProto) -> dict[str, int]:
    count: dict[str, int] = {}

    def add(inner: GraphProto) -> None:
        for node in inner.node:
            for name in node.input:
                count[name] = count.get(name, 0) + 1
            for attribute in node.attribute:
                for subgraph in [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs:
                    add(subgraph)
        for output in inner.output:
            count[output.name] = count.get(output.name, 0) + 1

    add(graph)
    return count
