"""Throw-away variants of a model, for looking inside: extra outputs and masked reads. Never emitted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import GraphProto, ModelProto, TensorProto, numpy_helper

from bocr_onnx.errors import ModelError
from bocr_onnx.graph.model import ROUNDING, Array, Operand

HALF = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})


def with_outputs(proto: ModelProto, names: Iterable[str]) -> ModelProto:
    """Returns a copy that also outputs the named tensors, in the given order behind its own outputs."""
    made = ModelProto()
    made.CopyFrom(proto)
    present = {o.name for o in made.graph.output}
    made.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in present)
    return made


def without_rounding(proto: ModelProto) -> ModelProto:
    """Returns a copy whose activations stay in floating point: their QuantizeLinear and DequantizeLinear pass through.

    Two sums of the same numbers in another order may fall on two sides of a rounding step, so that models which are
    equal by construction differ by whole steps. Constants stay quantized.
    """
    made = ModelProto()
    made.CopyFrom(proto)
    stored = {t.name for t in made.graph.initializer}
    outputs = {o.name for o in made.graph.output}
    loose: set[str] = set()
    for node in made.graph.node:
        rounds = node.op_type in ROUNDING and node.domain in ("", "ai.onnx")
        if node.op_type == "Constant" or (rounds and node.input[0] in stored):
            stored.update(node.output)
        elif rounds and (
            node.input[0] in loose if node.op_type == "DequantizeLinear" else node.output[0] not in outputs
        ):
            loose.update(node.output if node.op_type == "QuantizeLinear" else ())
            node.CopyFrom(onnx.helper.make_node("Identity", [node.input[0]], list(node.output), name=node.name))
        elif not rounds and node.input and node.input[0] in loose:
            loose.update(node.output)
    del made.graph.value_info[:]
    return made


def widened(proto: ModelProto) -> ModelProto:
    """Returns a copy that computes in single precision where the model computes in half.

    Half precision carries three digits, and two kernels of different width round differently.
    """
    made = ModelProto()
    made.CopyFrom(proto)
    for tensor in _tensors(made.graph):
        if tensor.data_type in HALF:
            wide = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
            tensor.CopyFrom(wide)
    for info in (*made.graph.input, *made.graph.output):
        if info.type.tensor_type.elem_type in HALF:
            info.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in made.graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i in HALF:
                attribute.i = TensorProto.FLOAT
    del made.graph.value_info[:]
    return made


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from (attribute.t for attribute in node.attribute if attribute.type == onnx.AttributeProto.TENSOR)


def with_masks(proto: ModelProto, nodes: Mapping[str, int], masks: Mapping[Operand, tuple[int, Array]]) -> ModelProto:
    """Returns a copy in which some reads see some channels as zero.

    Args:
        proto: The model.
        nodes: First output of a node -> its index in the keys of `masks`.
        masks: For a read (node index, input position): the channel axis counted from the last one (negative) and
            the mask, shape `(n_channels,)`, of the tensor's element type, one where the channel is read and zero
            where it is not.

    Raises:
        ModelError: Graphsurgeon cannot hold the model.
    """
    try:
        return _masked(proto, nodes, masks)
    except Exception as error:  # whatever an attribute or element type that it has no class for raises
        raise ModelError(f"the model must be one that can be instrumented, got: {error}") from error


def _masked(proto: ModelProto, nodes: Mapping[str, int], masks: Mapping[Operand, tuple[int, Array]]) -> ModelProto:
    graph = gs.import_onnx(proto)
    for node in list(graph.nodes):
        index = nodes.get(next((o.name for o in node.outputs if o.name), ""))
        for position, tensor in enumerate(list(node.inputs)):
            if index is None or (index, position) not in masks:
                continue
            axis, mask = masks[(index, position)]
            shaped = np.asarray(mask).reshape(-1, *[1] * (-axis - 1))
            name = f"{tensor.name}.masked.{index}.{position}"
            masked = gs.Variable(name, dtype=tensor.dtype)
            graph.nodes.append(
                gs.Node("Mul", name, inputs=[tensor, gs.Constant(f"{name}.mask", shaped)], outputs=[masked])
            )
            node.inputs[position] = masked
    graph.toposort()
    made: ModelProto = gs.export_onnx(graph, ir_version=proto.ir_version)
    return made
