"""Throw-away variants of a model, for looking inside: extra outputs and masked reads. Never emitted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import GraphProto, ModelProto, TensorProto, numpy_helper

from bocr_onnx.errors import ModelError
from bocr_onnx.graph.infer import FIRST_ROUNDING, evaluate
from bocr_onnx.graph.model import ROUNDING, Array, Operand
from bocr_onnx.graph.operators import INTEGER, ZERO_POINT

FIRST_WHERE = 9
"""The operator set that brought Where."""

HALF = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})


def with_outputs(proto: ModelProto, names: Iterable[str]) -> ModelProto:
    """Returns a copy that also outputs the named tensors, in the given order after its own outputs."""
    made = ModelProto()
    made.CopyFrom(proto)
    present = {o.name for o in made.graph.output}
    made.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in present)
    return made


def with_given(proto: ModelProto, values: Mapping[str, Array]) -> ModelProto:
    """Returns a copy that is given the values of inner tensors, as further inputs, instead of computing them.

    Args:
        proto: The model.
        values: Tensor name -> the value that it will be fed, of which the element type and rank are declared here.
    """
    made = ModelProto()
    made.CopyFrom(proto)
    nodes: list[onnx.NodeProto] = []
    for node in made.graph.node:
        if all(name in values for name in node.output if name):
            continue
        node.output[:] = [f"{name}.computed" if name in values else name for name in node.output]
        nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
    outputs = [o for o in made.graph.output if o.name not in values]
    for name, value in values.items():
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.asarray(value).dtype)
        made.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, [None] * np.ndim(value)))
    for field, kept in ((made.graph.node, nodes), (made.graph.output, outputs)):
        copies = [type(item).FromString(item.SerializeToString()) for item in kept]
        del field[:]
        field.extend(copies)
    del made.graph.value_info[:]
    return made


def without_rounding(proto: ModelProto) -> ModelProto:
    """Returns a copy that computes in floating point: activations are not rounded, and weights are what they stand for.

    Two sums of the same numbers in another order may fall on two sides of a rounding step, so that models which are
    equal by construction differ by whole steps; and ONNX Runtime multiplies quantized weights by kernels that round
    the activations in blocks of their own.
    """
    made = ModelProto()
    made.CopyFrom(proto)
    _dequantize(made)
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


def _dequantize(made: ModelProto) -> None:
    """Replaces what is dequantized from stored constants by its value, in place."""
    stored = {t.name: t for t in made.graph.initializer}
    opsets = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in made.opset_import}
    opsets.setdefault("", FIRST_ROUNDING)
    nodes = []
    for node in made.graph.node:
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            stored[node.output[0]] = value
        if node.op_type == "DequantizeLinear" and all(name in stored for name in node.input if name):
            feeds = {name: numpy_helper.to_array(stored[name]) for name in node.input if name}
            found = evaluate(node, feeds, opsets)
            if found is not None:
                made.graph.initializer.append(numpy_helper.from_array(np.asarray(found[0]), node.output[0]))
                continue
        nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del made.graph.node[:]
    made.graph.node.extend(nodes)


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
    """Returns a copy in which some reads see some channels as zero: operators on integers, as their zero point.

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
            if node.op in INTEGER:
                zero = node.inputs[position + ZERO_POINT] if position + ZERO_POINT < len(node.inputs) else None
                steps = _choosing(name, tensor, zero, shaped)
            else:
                steps = [_zeroing(name, tensor, shaped, graph.opset)]
            graph.nodes.extend(steps)
            node.inputs[position] = steps[-1].outputs[0]
    graph.toposort()
    made: ModelProto = gs.export_onnx(graph, ir_version=proto.ir_version, opset_imports=proto.opset_import)
    return made


def _zeroing(name: str, tensor: gs.Tensor, mask: Array, opset: int) -> gs.Node:
    """Returns the node that puts zero where the mask is zero, whatever is there: infinity times zero would be NaN."""
    if opset < FIRST_WHERE:
        return _step(name, "Mul", tensor, gs.Constant(f"{name}.mask", mask))
    zero = gs.Constant(f"{name}.zero", np.zeros((), dtype=mask.dtype))
    return _step(name, "Where", gs.Constant(f"{name}.mask", mask.astype(bool)), tensor, zero)


def _choosing(name: str, tensor: gs.Tensor, zero: gs.Tensor | None, mask: Array) -> list[gs.Node]:
    """Returns the nodes that put the zero point where the mask is zero, in int32: few kernels take small integers."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(mask.dtype)
    wide = _step(f"{name}.wide", "Cast", tensor, to=TensorProto.INT32)
    if zero is None or zero.is_empty():
        zero = gs.Constant(f"{name}.none", np.zeros((), dtype=mask.dtype))
    wide_zero = _step(f"{name}.zero", "Cast", zero, to=TensorProto.INT32)
    kept = gs.Constant(f"{name}.mask", mask.astype(bool))
    chosen = _step(f"{name}.chosen", "Where", kept, wide.outputs[0], wide_zero.outputs[0])
    return [wide, wide_zero, chosen, _step(name, "Cast", chosen.outputs[0], to=kind)]


def _step(name: str, op: str, *inputs: gs.Tensor, **attributes: int) -> gs.Node:
    return gs.Node(op, name, attributes, list(inputs), [gs.Variable(name)])
