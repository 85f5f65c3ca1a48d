"""Channel shuffles become one Gather: Reshape, Transpose, Reshape that only permute or pick along one axis.

As a Reshape, a shuffle forces every block of channels to keep as many as the others, in the same places; through a
stack of shuffled units that ties nearly all channels of a ShuffleNet to each other. As a Gather it is a list of
positions, of which any may go, and it runs no slower. What a chain of layout operators does is found by sending the
numbers of the elements through it, at every size the inputs are tried with.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, numpy_helper

from bocr_onnx.graph.edit import FIRST_IR_WITH_FREE_INITIALIZERS, sweep
from bocr_onnx.graph.infer import Knowledge, evaluate
from bocr_onnx.graph.model import Array, Node, Operand

LAYOUT = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Gather", "Slice", "Split"})
MAX_DEPTH = 4
MAX_ELEMENTS = 1 << 22

Picked = tuple[int, npt.NDArray[np.int64]]
"""An axis, and which of its entries are taken."""


def has_shuffles(nodes: Sequence[Node], readers: Mapping[str, Sequence[Operand]]) -> bool:
    """Returns whether a Transpose follows a Reshape anywhere."""
    return any(node.op == "Reshape" and _is_first(node, nodes, readers) for node in nodes)


def _is_first(node: Node, nodes: Sequence[Node], readers: Mapping[str, Sequence[Operand]]) -> bool:
    return any(nodes[i].op == "Transpose" for i, _ in readers.get(node.outputs[0], ()))


def gather_shuffles(
    proto: ModelProto,
    nodes: Sequence[Node],
    readers: Mapping[str, Sequence[Operand]],
    sizes: Sequence[Knowledge],
    opsets: dict[str, int],
) -> ModelProto | None:
    """Returns a copy of the model with every channel shuffle as one Gather, or None where it has none.

    Args:
        proto: The model, without local functions.
        nodes: Its nodes, in topological order.
        readers: Tensor name -> operands that read it.
        sizes: What is known at each size of the inputs.
        opsets: Version by domain.
    """
    protos = {p.output[0]: p for p in proto.graph.node if p.output}
    found: dict[str, tuple[str, Picked]] = {}
    for node in nodes:
        if node.op == "Reshape" and _is_first(node, nodes, readers):
            for name, picks in _chains(node, nodes, readers, sizes, protos, opsets):
                found.setdefault(name, (node.inputs[0], picks))
    if not found:
        return None
    made = ModelProto()
    made.CopyFrom(proto)
    _replace(made, found)
    return made


def _chains(
    first: Node,
    nodes: Sequence[Node],
    readers: Mapping[str, Sequence[Operand]],
    sizes: Sequence[Knowledge],
    protos: Mapping[str, NodeProto],
    opsets: dict[str, int],
) -> Iterator[tuple[str, Picked]]:
    """Yields every tensor after a Reshape that only takes entries of one axis of what the Reshape reads."""
    root = first.inputs[0]
    shapes = [known.shape(root) for known in sizes]
    if any(s is None or not 1 < math.prod(s) <= MAX_ELEMENTS for s in shapes) or root in sizes[0].constants:
        return
    numbers = [np.arange(math.prod(s)).reshape(s) for s in shapes if s is not None]
    waiting: list[tuple[Node, list[Array], int]] = [(first, list(numbers), 1)]
    while waiting:
        node, fed, depth = waiting.pop()
        runs = [_run(node, protos, x, known, opsets) for x, known in zip(fed, sizes, strict=True)]
        for i, name in enumerate(node.outputs):
            outputs = [run[i] for run in runs if run is not None]
            if len(outputs) < len(sizes):
                continue
            picks = [_picked(base, y) for base, y in zip(numbers, outputs, strict=True)]
            if depth > 2 and all(_same(p, picks[0]) for p in picks) and picks[0] is not None:
                yield name, picks[0]
            elif depth < MAX_DEPTH:
                after = [nodes[k] for k, at in readers.get(name, ()) if at == 0 and nodes[k].op in LAYOUT]
                waiting += [(reader, outputs, depth + 1) for reader in after if not reader.domain]


def _run(
    node: Node, protos: Mapping[str, NodeProto], x: Array, known: Knowledge, opsets: dict[str, int]
) -> list[Array] | None:
    feeds = {name: known.known(name) for name in node.inputs[1:] if name}
    if any(value is None for value in feeds.values()):
        return None
    found = evaluate(protos[node.outputs[0]], {**feeds, node.inputs[0]: x}, opsets)
    return None if found is None else [np.asarray(y) for y in found]


def _picked(base: Array, y: Array) -> Picked | None:
    """Returns the axis and entries whose picking turns one array into the other, None where there are none."""
    if y.ndim != base.ndim:
        return None
    for axis in range(base.ndim):
        along = np.moveaxis(y, axis, 0).reshape(y.shape[axis], -1)[:, 0]
        stride = math.prod(base.shape[axis + 1 :])
        entries = along // stride
        if entries.max() >= base.shape[axis] or np.array_equal(entries, np.arange(base.shape[axis])):
            continue
        if np.array_equal(base.take(entries, axis=axis), y):
            return axis, entries
    return None


def _same(a: Picked | None, b: Picked | None) -> bool:
    return a is not None and b is not None and a[0] == b[0] and np.array_equal(a[1], b[1])


def _replace(made: ModelProto, found: Mapping[str, tuple[str, Picked]]) -> None:
    graph = made.graph
    taken = {t.name for t in graph.initializer} | {o for n in graph.node for o in n.output}
    unread: set[str] = set()
    nodes: list[NodeProto] = []
    for node in graph.node:
        if not node.output or any(name not in found for name in node.output):
            nodes.append(node)
            continue
        unread.update(node.input)
        for number, name in enumerate(node.output):
            source, (axis, entries) = found[name]
            indices = f"{name}.entries"
            while indices in taken:
                indices += "_"
            taken.add(indices)
            _add_constant(made, indices, entries)
            label = f"{node.name}.{number}" if node.name and number else node.name
            nodes.append(onnx.helper.make_node("Gather", [source, indices], [name], name=label, axis=axis))
    copies = [NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    sweep(graph, unread - {""})


def _add_constant(made: ModelProto, name: str, array: Array) -> None:
    made.graph.initializer.append(numpy_helper.from_array(array.astype(np.int64), name))
    if made.ir_version < FIRST_IR_WITH_FREE_INITIALIZERS:
        info = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, array.shape)
        made.graph.input.append(info)
