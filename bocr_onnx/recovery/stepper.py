"""One operator at a time on ONNX Runtime: what the sequential recovery walks with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from bocr_onnx.graph import Array, Edit, ModelGraph, Node, set_attribute
from bocr_onnx.runtime.session import open_session, run_session

Chunks = tuple[Array, ...]
"""A tensor over all images, in runs of the model's batch."""


def run_node(graph: ModelGraph, node: Node, edit: Edit, inputs: Mapping[str, Chunks]) -> dict[str, Chunks]:
    """Returns the outputs of one node for every chunk.

    Args:
        graph: The original.
        node: The node, as the original has it.
        edit: What a slim model changes; ``Edit()`` runs the original's node.
        inputs: The computed tensors it reads.

    Raises:
        ModelError: ONNX Runtime rejects or fails to run the node.
    """
    session = open_session(_single(graph, node, edit, inputs))
    names = [name for name in node.outputs if name]
    n_chunks = len(next(iter(inputs.values())))
    runs = [run_session(session, {n: c[i] for n, c in inputs.items()}, names) for i in range(n_chunks)]
    return {name: tuple(run[i] for run in runs) for i, name in enumerate(names)}


def _single(graph: ModelGraph, node: Node, edit: Edit, inputs: Mapping[str, Chunks]) -> onnx.ModelProto:
    source = next(n for n in graph.proto.graph.node if set(n.output) & set(node.outputs) - {""})
    proto = onnx.NodeProto()
    proto.CopyFrom(source)
    for (index, name), value in edit.attributes.items():
        if index == node.index:
            set_attribute(proto, name, value)
    constants = []
    for position in range(max(len(node.inputs), 1 + max((p for i, p in edit.operands if i == node.index), default=-1))):
        array = edit.operands.get((node.index, position))
        array = graph.constant(node.input(position)) if array is None else array
        while len(proto.input) <= position:
            proto.input.append("")
        if array is not None:
            proto.input[position] = f"constant.{position}"
            constants.append(numpy_helper.from_array(np.asarray(array, order="C"), f"constant.{position}"))
    infos = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(chunks[0].dtype), [None] * chunks[0].ndim
        )
        for name, chunks in inputs.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.outputs if name]
    made = onnx.helper.make_graph([proto], "step", infos, outputs, constants)
    return onnx.helper.make_model(
        made, opset_imports=graph.proto.opset_import, ir_version=max(graph.proto.ir_version, 4)
    )


def computed_inputs(graph: ModelGraph, node: Node) -> list[str]:
    """Returns the tensors a node reads that are not constant, its subgraphs' included, without repetition."""
    names = dict.fromkeys(n for n in (*node.inputs, *node.captures) if n and graph.constant(n) is None)
    return list(names)
