"""Corrupted files: every one is read, cut and proved, or refused by an error that a user can act on.

A case is a number: it seeds which model is taken and how it is corrupted. Cases run in a process of their own, where
a crash, a hang or a lot of memory is noticed:

    BOCR_FUZZ=5000 pytest tests/test_fuzz.py              many cases
    python -m tests.test_fuzz case 1234 /tmp/1234.onnx    writes one case to a file, and runs it
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, numpy_helper

from bocr_onnx.cost import build_cost_model
from bocr_onnx.errors import BocrError, PlanError
from bocr_onnx.graph import load
from bocr_onnx.groups import GroupIndex, build_index
from bocr_onnx.slimming import cut, plan_of_mask, prove_cut, read_plan, write_plan
from tests.oracle import bn, build, proto, run

Rng = np.random.Generator
Corrupt = Callable[[ModelProto, Rng], None]

N_CASES = int(os.environ.get("BOCR_FUZZ", "120"))
SECONDS, MEBIBYTES = 10, 2048
"""What a case may take; the seconds are those of the processor, so that a busy machine does not fail it."""
ASLEEP = 300
"""Seconds by the clock after which a process that does nothing is ended."""

HUGE = (1 << 20, 10**9, 1 << 31, 1 << 40, (1 << 63) - 1)
ODD_INTEGERS = (0, -1, 1, 2, 3, 7, 99, -99, -(1 << 63), *HUGE)
DEMO = str(files("bocr_onnx.calibration") / "demo.onnx")

# ---------------------------------------------------------------------------------------------- what is corrupted

CHAIN = """m (float[N, 3, 6, 6] x) => (float[N, 4] y) {
    c = Conv <pads = [1, 1, 1, 1]> (x, W, b)
    p, q = Split <axis = 1> (c, halves)
    s = Sigmoid(p)
    g = Mul(s, q)
    d = Pad(g, amounts)
    e = Gather <axis = 1> (d, order)
    k = Concat <axis = 1> (e, c)
    i = Slice(k, zero, ten, one)
    z = ConstantOfShape(shape)
    a = Add(i, z)
    t = Tile(a, times)
    m = Expand(t, wide)
    u = Resize <mode = "nearest"> (m, , scales)
    w = ReduceMean <axes = [2, 3], keepdims = 1> (u)
    f = Reshape(w, target)
    h = Flatten(f)
    y = Gemm(h, G, o)
}"""
CHAIN_CONSTANTS: dict[str, Any] = {
    "W": (8, 3, 3, 3),
    "b": (8,),
    "halves": [4, 4],
    "amounts": [0, 1, 0, 0, 0, 1, 0, 0],
    "order": [5, 4, 3, 2, 1, 0],
    "zero": [0],
    "ten": [10],
    "one": [1],
    "shape": [1, 10, 1, 1],
    "times": [1, 1, 1, 2],
    "wide": [1, 1, 6, 12],
    "scales": np.array([1, 1, 2, 2], np.float32),
    "target": [-1, 10],
    "G": (10, 4),
    "o": (4,),
}
LAYERS = """m (float[N, 4, 6, 6] x) => (float[N, 3, 4, 4] y) {
    c = Conv <pads = [1, 1, 1, 1], kernel_shape = [3, 3], strides = [1, 1], dilations = [1, 1]> (x, W, b)
    n = BatchNormalization <epsilon = 0.001> (c, bn_s, bn_b, bn_m, bn_v)
    i = InstanceNormalization(n, is, ib)
    g = GroupNormalization <num_groups = 2> (i, gs, gb)
    r = LeakyRelu <alpha = 0.1> (g)
    d = Conv <group = 8, pads = [1, 1, 1, 1]> (r, D)
    h = Conv <group = 2> (d, H)
    m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (h)
    a = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (m)
    t = ConvTranspose <group = 2, strides = [2, 2]> (a, T)
    s = SpaceToDepth <blocksize = 2> (t)
    e = DepthToSpace <blocksize = 2, mode = "CRD"> (s)
    p = Transpose <perm = [0, 2, 3, 1]> (e)
    l = LayerNormalization <axis = -1> (p, ls, lb)
    v = MatMul(l, M)
    o = Softmax <axis = -1> (v)
    q = Transpose <perm = [0, 3, 1, 2]> (o)
    y = Conv <kernel_shape = [3, 3]> (q, O)
}"""
LAYERS_CONSTANTS: dict[str, Any] = {
    "W": (8, 4, 3, 3),
    "b": (8,),
    "is": (8,),
    "ib": (8,),
    "gs": (8,),
    "gb": (8,),
    "D": (8, 1, 3, 3),
    "H": (12, 4, 1, 1),
    "T": (12, 5, 2, 2),
    "ls": (10,),
    "lb": (10,),
    "M": (10, 6),
    "O": (3, 6, 3, 3),
    **bn(8),
}
HEADS = """m (float[N, 5, 6] x) => (float[N, 5, 6] y) {
    z = MatMul(x, A)
    h = Add(z, b)
    s = Shape(h)
    n = Gather(s, zero)
    u = Unsqueeze(n, first)
    t = Concat <axis = 0> (u, k)
    r = Reshape(h, t)
    p = Transpose <perm = [2, 0, 3, 1, 4]> (r)
    q3, k3, v3 = Split <axis = 0, num_outputs = 3> (p)
    q = Squeeze(q3, first)
    kk = Squeeze(k3, first)
    v = Squeeze(v3, first)
    kt = Transpose <perm = [0, 1, 3, 2]> (kk)
    l = MatMul(q, kt)
    w = Mul(l, half)
    a = Softmax <axis = -1> (w)
    o = Einsum <equation = "nhlm,nhmd->nlhd"> (a, v)
    f = Reshape(o, flat)
    g = MatMul(f, O)
    e = Add(g, x)
    top, at = TopK <axis = -1> (e, six)
    y = CumSum(top, axis)
}"""
HEADS_CONSTANTS: dict[str, Any] = {
    "A": (6, 36),
    "b": (36,),
    "zero": np.array(0, np.int64),
    "first": [0],
    "k": [5, 3, 4, 3],
    "half": np.array(0.5, np.float32),
    "flat": [0, 5, -1],
    "O": (12, 6),
    "six": [6],
    "axis": np.array(1, np.int64),
}
ROUNDED = """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
    w = DequantizeLinear <axis = 0> (W, ws, wz)
    c = Conv(x, w)
    q = QuantizeLinear(c, s, z)
    d = DequantizeLinear(q, s, z)
    r = Relu(d)
    v = DequantizeLinear <axis = 1> (V, vs)
    y = Conv(r, v)
}"""
ROUNDED_CONSTANTS: dict[str, Any] = {
    "W": np.arange(-9, 9, dtype=np.int8).reshape(6, 3, 1, 1),
    "ws": np.linspace(0.01, 0.1, 6, dtype=np.float32),
    "wz": np.zeros(6, np.int8),
    "s": np.array(0.02, np.float32),
    "z": np.array(128, np.uint8),
    "V": np.arange(-6, 6, dtype=np.int8).reshape(2, 6, 1, 1),
    "vs": np.linspace(0.01, 0.1, 6, dtype=np.float32),
}
BRANCHES = """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
    c = Conv(x, W)
    i = If (yes) <
        then_branch = left () => (float[N, 6, 4, 4] l) { l = Relu(c) },
        else_branch = right () => (float[N, 6, 4, 4] r) { r = Conv(c, U) }
    >
    n = Loop (trip, yes, i) <
        body = inner (int64 step, bool go, float[N, 6, 4, 4] held) => (bool go_on, float[N, 6, 4, 4] next) {
            go_on = Identity(go)
            next = Add(held, c)
        }
    >
    d = Conv(n, D)
    y = Conv(d, V)
}"""
BRANCHES_CONSTANTS: dict[str, Any] = {
    "W": (6, 3, 1, 1),
    "U": (6, 6, 1, 1),
    "D": (6, 6, 1, 1),
    "V": (2, 6, 1, 1),
    "yes": np.array(True),
    "trip": np.array(3, np.int64),
}
CALLS = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) { c = Conv(x, W) r = local.Act(c) y = Conv(r, V) }
<domain: "local", opset_import: ["" : 17, "local" : 1]>
Act (a) => (b) { s = local.Gate(a) b = Mul(a, s) }
<domain: "local", opset_import: ["" : 17]>
Gate (a) => (b) { b = Sigmoid(a) }"""


@cache
def originals() -> dict[str, ModelProto]:
    """Returns the models that are corrupted."""
    outside = proto(CHAIN, **CHAIN_CONSTANTS)
    _store_outside(outside, "W")
    return {
        "demo": onnx.load(DEMO),
        "chain": proto(CHAIN, **CHAIN_CONSTANTS),
        "layers": proto(LAYERS, opset=21, ir=10, **LAYERS_CONSTANTS),
        "heads": proto(HEADS, opset=18, **HEADS_CONSTANTS),
        "rounded": proto(ROUNDED, opset=19, ir=9, **ROUNDED_CONSTANTS),
        "branches": proto(BRANCHES, **BRANCHES_CONSTANTS),
        "calls": proto(CALLS, W=(6, 3, 1, 1), V=(2, 6, 1, 1)),
        "external": outside,
    }


def _store_outside(model: ModelProto, name: str) -> None:
    """Points a tensor to `weights.bin`, which `examine` writes beside the model."""
    tensor = next(t for t in model.graph.initializer if t.name == name)
    onnx.external_data_helper.set_external_data(tensor, "weights.bin", offset=0, length=len(tensor.raw_data))
    tensor.ClearField("raw_data")


# ------------------------------------------------------------------------------------------------ how it is corrupted


def _any(rng: Rng, items: Sequence[Any]) -> Any:
    if not len(items):
        raise LookupError("this model has none")
    return items[int(rng.integers(len(items)))]


def _nodes(model: ModelProto) -> list[NodeProto]:
    inner = [n for node in model.graph.node for a in node.attribute for n in a.g.node]
    return [*model.graph.node, *inner, *(n for f in model.functions for n in f.node)]


def _node_with(model: ModelProto, rng: Rng, field: str) -> NodeProto:
    found: NodeProto = _any(rng, [n for n in _nodes(model) if len(getattr(n, field))])
    return found


def _tensor(model: ModelProto, rng: Rng) -> TensorProto:
    found: TensorProto = _any(rng, model.graph.initializer)
    return found


def _dims(rng: Rng) -> int:
    return int(_any(rng, ODD_INTEGERS))


def cycle(model: ModelProto, rng: Rng) -> None:
    node = _node_with(model, rng, "input")
    later = _any(rng, [o for n in model.graph.node for o in n.output])
    node.input[int(rng.integers(len(node.input)))] = later


def dangle(model: ModelProto, rng: Rng) -> None:
    node = _node_with(model, rng, "input")
    node.input[int(rng.integers(len(node.input)))] = _any(rng, ["nowhere", ""])


def swap_inputs(model: ModelProto, rng: Rng) -> None:
    node = _node_with(model, rng, "input")
    names = list(node.input)
    node.input[:] = [names[i] for i in rng.permutation(len(names))]


def other_input(model: ModelProto, rng: Rng) -> None:
    node = _node_with(model, rng, "input")
    known = [t.name for t in model.graph.initializer] + [i.name for i in model.graph.input]
    node.input[int(rng.integers(len(node.input)))] = _any(rng, known)


def drop_input(model: ModelProto, rng: Rng) -> None:
    node = _node_with(model, rng, "input")
    del node.input[int(rng.integers(len(node.input))) :]


def extra_input(model: ModelProto, rng: Rng) -> None:
    node = _node_with(model, rng, "input")
    node.input.extend([_any(rng, list(node.input))] * int(rng.integers(1, 4)))


def duplicate_output(model: ModelProto, rng: Rng) -> None:
    node = _node_with(model, rng, "output")
    node.output[0] = _any(rng, [o for n in model.graph.node for o in n.output] + [model.graph.input[0].name])


def rename_output(model: ModelProto, rng: Rng) -> None:
    node = _node_with(model, rng, "output")
    node.output[int(rng.integers(len(node.output)))] = _any(rng, ["elsewhere", ""])


def extra_output(model: ModelProto, rng: Rng) -> None:
    node = _node_with(model, rng, "output")
    node.output.extend(f"more{i}" for i in range(int(rng.integers(1, 4))))


def drop_outputs(model: ModelProto, rng: Rng) -> None:
    node = _node_with(model, rng, "output")
    del node.output[int(rng.integers(len(node.output))) :]


def drop_node(model: ModelProto, rng: Rng) -> None:
    del model.graph.node[int(rng.integers(len(model.graph.node)))]


def repeat_node(model: ModelProto, rng: Rng) -> None:
    model.graph.node.add().CopyFrom(_any(rng, list(model.graph.node)))


def reorder(model: ModelProto, rng: Rng) -> None:
    nodes = [NodeProto.FromString(n.SerializeToString()) for n in model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes[i] for i in rng.permutation(len(nodes)))


def other_operator(model: ModelProto, rng: Rng) -> None:
    node = _any(rng, _nodes(model))
    kinds = sorted({n.op_type for m in originals().values() for n in _nodes(m)})
    odd = "Identity Shape Size Range OneHot Nope EyeLike NonZero ReduceSum Einsum Attention Col2Im Where".split()
    node.op_type = _any(rng, [*kinds, *odd])


def other_domain(model: ModelProto, rng: Rng) -> None:
    _any(rng, _nodes(model)).domain = _any(rng, ["com.microsoft", "nowhere", "ai.onnx", "ai.onnx.ml"])


def other_opset(model: ModelProto, rng: Rng) -> None:
    version = _any(rng, [0, 1, 6, 7, 8, 9, 10, 11, 12, 13, 16, 18, 20, 22, 24, 25, 99, -1, 1 << 40])
    model.opset_import[0].version = version


def other_version(model: ModelProto, rng: Rng) -> None:
    model.ir_version = _any(rng, [0, 1, 3, 4, 12, 99, -1, 1 << 40])


def no_opset(model: ModelProto, rng: Rng) -> None:
    del model.opset_import[:]


def duplicate_opset(model: ModelProto, rng: Rng) -> None:
    model.opset_import.add(domain=_any(rng, ["", "ai.onnx", "x"]), version=int(_any(rng, [7, 11, 13, 18])))


def attribute(model: ModelProto, rng: Rng) -> None:
    """Makes an attribute absurd."""
    a = _any(rng, [a for n in _nodes(model) for a in n.attribute if a.type != AttributeProto.GRAPH])
    if a.type == AttributeProto.INT:
        a.i = _dims(rng)
    elif a.type == AttributeProto.INTS:
        _spoil(a.ints, rng)
    elif a.type == AttributeProto.FLOAT:
        a.f = _any(rng, [0.0, -1.0, float("nan"), float("inf"), 1e38])
    elif a.type == AttributeProto.STRING:
        a.s = _any(rng, [b"", b"x", b"\xff\xfe", b"CRD", b"reflect", b"linear", b"->", b"ab,bc", b"...ij,jk->...ik"])


def _spoil(entries: Any, rng: Rng) -> None:
    """Changes a list of integers in place."""
    how = int(rng.integers(6))
    if not len(entries) or how == 0:
        entries.extend([_dims(rng)] * int(rng.integers(1, 4)))
    elif how == 1:
        del entries[int(rng.integers(len(entries))) :]
    elif how == 2:
        entries[:] = [entries[0]] * len(entries)
    else:
        entries[int(rng.integers(len(entries)))] = _dims(rng)


def attribute_type(model: ModelProto, rng: Rng) -> None:
    a = _any(rng, [a for n in _nodes(model) for a in n.attribute])
    a.type = int(_any(rng, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]))


def attribute_of_another_type(model: ModelProto, rng: Rng) -> None:
    node = _node_with(model, rng, "attribute")
    a = _any(rng, list(node.attribute))
    values: list[Any] = [1, [1, 2], 0.5, [0.5], "text", ["a", "b"], numpy_helper.from_array(np.zeros(2, np.int64))]
    a.CopyFrom(onnx.helper.make_attribute(a.name, _any(rng, values)))


def attribute_name(model: ModelProto, rng: Rng) -> None:
    node = _node_with(model, rng, "attribute")
    _any(rng, list(node.attribute)).name = _any(rng, ["axis", "axes", "perm", "group", "", "to", "split"])


def attribute_lost(model: ModelProto, rng: Rng) -> None:
    node = _node_with(model, rng, "attribute")
    del node.attribute[int(rng.integers(len(node.attribute)))]


def attribute_twice(model: ModelProto, rng: Rng) -> None:
    node = _node_with(model, rng, "attribute")
    node.attribute.add().CopyFrom(node.attribute[0])
    attribute(model, rng)


def attribute_added(model: ModelProto, rng: Rng) -> None:
    made = {
        "axis": _dims(rng),
        "axes": [_dims(rng)],
        "keepdims": _dims(rng),
        "group": _dims(rng),
        "auto_pad": _any(rng, ["SAME_UPPER", "VALID", "x"]),
        "ceil_mode": _dims(rng),
        "output_padding": [_dims(rng), 1],
        "output_shape": [_dims(rng), 1],
        "dilations": [_dims(rng), 1],
        "kernel_shape": [_dims(rng), 1],
        "allowzero": 1,
        "block_size": _dims(rng),
        "training_mode": 1,
        "start": _dims(rng),
        "end": _dims(rng),
        "transA": 1,
    }
    name = _any(rng, sorted(made))
    _any(rng, _nodes(model)).attribute.append(onnx.helper.make_attribute(name, made[name]))


def tensor_dims(model: ModelProto, rng: Rng) -> None:
    _spoil(_tensor(model, rng).dims, rng)


def tensor_type(model: ModelProto, rng: Rng) -> None:
    _tensor(model, rng).data_type = int(rng.integers(0, 26))


def tensor_bytes(model: ModelProto, rng: Rng) -> None:
    tensor = _tensor(model, rng)
    tensor.raw_data = _any(rng, [b"", tensor.raw_data[:-1], tensor.raw_data[: len(tensor.raw_data) // 2], b"\0" * 999])


def tensor_fields(model: ModelProto, rng: Rng) -> None:
    tensor = _tensor(model, rng)
    if rng.random() < 0.5:
        tensor.ClearField("raw_data")
    getattr(tensor, _any(rng, ["float_data", "int32_data", "int64_data", "double_data"])).extend([1, 2, 3])


def tensor_name(model: ModelProto, rng: Rng) -> None:
    _tensor(model, rng).name = _any(rng, ["", "elsewhere", _tensor(model, rng).name, model.graph.node[0].output[0]])


def integers(model: ModelProto, rng: Rng) -> None:
    """Makes a target shape, a pad amount or an index absurd."""
    tensor = _any(rng, [t for t in model.graph.initializer if t.data_type == TensorProto.INT64])
    entries = numpy_helper.to_array(tensor).reshape(-1).tolist()
    _spoil(entries, rng)
    if tensor.name == "trip":  # how long a loop runs, the runtime decides
        entries = [min(entry, 3) for entry in entries] or [3]
    shape = () if not tensor.dims and len(entries) == 1 else (len(entries),)
    tensor.CopyFrom(numpy_helper.from_array(np.array(entries, np.int64).reshape(shape), tensor.name))


def numbers(model: ModelProto, rng: Rng) -> None:
    """Puts NaN, infinities or zeros into weights."""
    tensor = _any(rng, [t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and t.raw_data])
    array = numpy_helper.to_array(tensor).copy()
    some = rng.random(array.shape) < _any(rng, [0.1, 1.0])
    array[some] = _any(rng, [float("nan"), float("inf"), float("-inf"), 0.0, 1e38])
    tensor.raw_data = array.tobytes()


def other_tensor(model: ModelProto, rng: Rng) -> None:
    """Replaces a constant by one of another type or shape, consistent in itself."""
    tensor = _tensor(model, rng)
    shape = tuple(int(d) for d in rng.choice([0, 1, 2, 3, 6, 8], size=int(rng.integers(0, 5))))
    arrays = [
        np.zeros(shape, dtype) for dtype in (np.float32, np.float64, np.float16, np.int64, np.int32, np.int8, np.bool_)
    ]
    text = np.full(shape, "text", dtype=object)
    tensor.CopyFrom(numpy_helper.from_array(_any(rng, [*arrays, text]), tensor.name))


def empty_axis(model: ModelProto, rng: Rng) -> None:
    tensor = _any(rng, [t for t in model.graph.initializer if t.dims])
    shape = list(tensor.dims)
    shape[int(rng.integers(len(shape)))] = 0
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    tensor.CopyFrom(numpy_helper.from_array(np.zeros(shape, dtype), tensor.name))


def repeat_tensor(model: ModelProto, rng: Rng) -> None:
    model.graph.initializer.add().CopyFrom(_tensor(model, rng))


def drop_tensor(model: ModelProto, rng: Rng) -> None:
    del model.graph.initializer[int(rng.integers(len(model.graph.initializer)))]


def tensor_into_input(model: ModelProto, rng: Rng) -> None:
    """Makes a constant an input of the model, of its own or of an unknown type."""
    tensor = _tensor(model, rng)
    shape = _any(rng, [list(tensor.dims), None, [None] * len(tensor.dims)])
    model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, shape))
    if rng.random() < 0.7:
        model.graph.initializer.remove(tensor)


def input_dims(model: ModelProto, rng: Rng) -> None:
    _spoil_dims(_any(rng, [*model.graph.input, *model.graph.input, *model.graph.output]), rng)


def _spoil_dims(info: onnx.ValueInfoProto, rng: Rng) -> None:
    dims = info.type.tensor_type.shape.dim
    how = int(rng.integers(6))
    if how == 0:
        del dims[int(rng.integers(len(dims) + 1)) :]
    elif how == 1:
        dims.add().dim_value = _dims(rng)
    elif how == 2:
        for dim in dims:
            dim.Clear()
    elif how == 3:
        info.type.tensor_type.ClearField("shape")
    elif len(dims):
        dims[int(rng.integers(len(dims)))].dim_value = _dims(rng)


def input_type(model: ModelProto, rng: Rng) -> None:
    info = _any(rng, [*model.graph.input, *model.graph.output])
    if rng.random() < 0.3:
        made = onnx.TypeProto()
        if rng.random() < 0.7:
            made.sequence_type.elem_type.CopyFrom(info.type)
        info.type.CopyFrom(made)
    else:
        info.type.tensor_type.elem_type = int(rng.integers(0, 26))


def inner_types(model: ModelProto, rng: Rng) -> None:
    """Declares wrong types of inner tensors."""
    for node in model.graph.node:
        if rng.random() < 0.3:
            shape = [_dims(rng) for _ in range(int(rng.integers(0, 5)))]
            info = onnx.helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, shape)
            model.graph.value_info.append(info)


def outputs(model: ModelProto, rng: Rng) -> None:
    how = int(rng.integers(4))
    if how == 0:
        del model.graph.output[:]
    elif how == 1:
        model.graph.output.add().CopyFrom(model.graph.output[0])
    else:
        inner = [o for n in model.graph.node for o in n.output] + [model.graph.input[0].name, "nowhere", ""]
        inner += [t.name for t in model.graph.initializer]
        info = onnx.ValueInfoProto(name=_any(rng, inner))
        if how == 3:
            info.type.tensor_type.elem_type = TensorProto.FLOAT
        model.graph.output.append(info)


def inputs(model: ModelProto, rng: Rng) -> None:
    how = int(rng.integers(3))
    if how == 0:
        del model.graph.input[:]
    elif how == 1:
        model.graph.input.add().CopyFrom(model.graph.input[0])
    else:
        model.graph.input.append(onnx.helper.make_tensor_value_info("more", TensorProto.FLOAT, [_dims(rng), None]))


def names(model: ModelProto, rng: Rng) -> None:
    for node in model.graph.node:
        node.name = _any(rng, ["same", "", "x" * 10_000, "ü\n\0", "[bold]"])


def sparse(model: ModelProto, rng: Rng) -> None:
    tensor = _tensor(model, rng)
    made = model.graph.sparse_initializer.add()
    made.values.CopyFrom(tensor)
    made.indices.CopyFrom(numpy_helper.from_array(np.arange(int(rng.integers(0, 9))), "i"))
    made.dims.extend([_dims(rng)])
    model.graph.initializer.remove(tensor)


def outside(model: ModelProto, rng: Rng) -> None:
    """Points a tensor to data that is not there."""
    tensor = _tensor(model, rng)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    del tensor.external_data[:]
    keys = ["location", "offset", "length", "checksum", "nonsense", ""]
    values = ["weights.bin", "weights.bin", "/etc/passwd", "../x", "", ".", "0", "-1", "8", str(1 << 40), "x", "\0"]
    for _ in range(int(rng.integers(0, 4))):
        tensor.external_data.add(key=_any(rng, keys), value=_any(rng, values))
    tensor.external_data.add(key="location", value=_any(rng, values))


def functions(model: ModelProto, rng: Rng) -> None:
    function = _any(rng, list(model.functions))
    how = int(rng.integers(5))
    if how == 0:
        function.node.add().CopyFrom(onnx.helper.make_node(function.name, ["a"], ["b2"], domain=function.domain))
    elif how == 1:
        model.functions.add().CopyFrom(function)
    elif how == 2:
        function.input.append("more")
        function.output.append("b3")
    elif how == 3:
        function.node[0].attribute.add(name="axis", ref_attr_name="nope", type=AttributeProto.INT)
    else:
        del function.opset_import[:]


CORRUPTIONS: tuple[Corrupt, ...] = (
    *(cycle, dangle, swap_inputs, other_input, drop_input, extra_input, duplicate_output, rename_output, extra_output),
    *(
        drop_outputs,
        drop_node,
        repeat_node,
        reorder,
        other_operator,
        other_domain,
        other_opset,
        other_version,
        no_opset,
    ),
    *(duplicate_opset, attribute, attribute, attribute, attribute_type, attribute_of_another_type, attribute_name),
    *(attribute_lost, attribute_twice, attribute_added, tensor_dims, tensor_type, tensor_bytes, tensor_fields),
    *(tensor_name, integers, integers, integers, integers, numbers, other_tensor, empty_axis, repeat_tensor),
    *(drop_tensor, tensor_into_input, input_dims, input_dims, input_type, inner_types, outputs, inputs, names, sparse),
    *(outside, functions),
)


def corrupt_bytes(data: bytes, rng: Rng) -> tuple[str, bytes]:
    """Returns how bytes were corrupted, and what came out."""
    how = _any(rng, ["truncated", "flipped", "removed", "repeated", "random"])
    start, size = int(rng.integers(len(data))), int(rng.integers(1, 64))
    if how == "truncated":
        return how, data[:start]
    if how == "removed":
        return how, data[:start] + data[start + size :]
    if how == "repeated":
        return how, data[: start + size] + data[start:]
    made = bytearray(data)
    for _ in range(int(_any(rng, [1, 1, 3, 30]))):
        at = int(rng.integers(min(len(made), int(_any(rng, [200, 1 << 30])))))
        made[at] = int(rng.integers(256)) if how == "random" else made[at] ^ (1 << int(rng.integers(8)))
    return how, bytes(made)


def make_case(number: int) -> tuple[str, bytes]:
    """Returns what a case is, and the bytes of its file."""
    rng = np.random.default_rng([42, number])
    name = _any(rng, sorted(originals()))
    original = originals()[name]
    if rng.random() < 0.15:
        how, data = corrupt_bytes(original.SerializeToString(), rng)
        return f"{name}: {how}", data
    model = ModelProto()
    model.CopyFrom(original)
    done: list[str] = []
    wanted = int(_any(rng, [1, 1, 1, 2, 3]))
    while len(done) < wanted:
        corrupt = _any(rng, CORRUPTIONS)
        try:
            corrupt(model, rng)
        except (LookupError, ValueError, TypeError, OverflowError, AttributeError):
            continue
        done.append(corrupt.__name__)
    return f"{name}: {', '.join(done)}", model.SerializeToString()


def _case(case: str) -> tuple[str, bytes]:
    return (case, SMALLEST[case]().SerializeToString()) if case in SMALLEST else make_case(int(case))


# ------------------------------------------------------------------------------------------------ what is done with it


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a case.

    `fine`, `refused`, `unproved` (the proof fails, and says so), `runtime` (ONNX Runtime itself crashed or hung, which
    no handler in Python sees), or else a defect.
    """

    case: str
    what: str
    outcome: str
    detail: str = ""
    seconds: float = 0.0
    mebibytes: int = 0

    @property
    def defect(self) -> str:
        """Returns what is wrong, empty where nothing is."""
        if self.outcome not in ("fine", "refused", "unproved", "runtime"):
            return f"case {self.case} ({self.what}): {self.outcome}\n{self.detail}"
        if self.seconds > SECONDS:
            return f"case {self.case} ({self.what}): took {self.seconds:.0f} s"
        if self.mebibytes > MEBIBYTES:
            return f"case {self.case} ({self.what}): took {self.mebibytes} MiB"
        return ""


def random_mask(index: GroupIndex, rng: Rng) -> npt.NDArray[np.bool_]:
    mask = rng.random(index.n_channels) < 0.6
    for group in index.groups:
        mask[group.start] = True
    return mask


def use(path: Path) -> None:
    """Does all that a command does with a file."""
    graph = load(path)
    index = build_index(graph)
    cost = build_cost_model(index)
    cost.shares()
    cost.prunable_share()
    for seed in range(2):
        mask = random_mask(index, np.random.default_rng(seed))
        prove_cut(index, mask, cut(index, mask), run)


def examine(case: str, what: str, data: bytes) -> Found:
    """Returns what comes of a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(data)
        (Path(folder) / "weights.bin").write_bytes(bytes(4 * 8 * 3 * 3 * 3))
        Path("/proc/self/clear_refs").write_text("5")
        started = time.process_time()
        outcome, detail = "fine", ""
        try:
            use(path)
        except BocrError as error:
            outcome = "unproved" if type(error).__name__ == "ProofError" else "refused"
            detail = f"{type(error).__name__}: {error}"
        except Exception:
            outcome, detail = "raised", traceback.format_exc()
        return Found(case, what, outcome, detail, time.process_time() - started, _peak())


def _peak() -> int:
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) >> 10 if found else 0


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Ends the process, with a trace of where it is, once the block has taken that much of the processor."""
    faulthandler.register(signal.SIGPROF, chain=True)
    faulthandler.dump_traceback_later(ASLEEP, exit=True)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()


def serve(cases: Sequence[str]) -> None:
    """Examines cases one after another; prints which it begins and what it found."""
    resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for case in cases:
        what, data = _case(case)
        print(json.dumps({"case": case, "what": what}), flush=True)
        with within(SECONDS):
            found = examine(case, what, data)
        print(json.dumps(asdict(found)), flush=True)


def examine_all(cases: Sequence[str]) -> Iterator[Found]:
    """Yields what comes of every case; a process that a case ends is started again after it."""
    waiting = list(cases)
    while waiting:
        process = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-m", "tests.test_fuzz", *waiting],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parents[1],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        lines = [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]
        for line in lines:
            if "outcome" in line:
                yield Found(**line)
        if lines and "outcome" not in lines[-1]:
            yield Found(**lines[-1], outcome=_end(process.returncode, process.stderr), detail=process.stderr[-6000:])
        elif process.returncode or not lines:
            raise RuntimeError(process.stderr)
        waiting = waiting[waiting.index(lines[-1]["case"]) + 1 :]


def _end(code: int, stderr: str) -> str:
    """Returns the outcome of a case that ended its process, by the innermost frame of the trace."""
    frames = re.findall(r'File "([^"]+)"', stderr)
    return "runtime" if frames and "onnxruntime" in frames[0] else f"ended the process, {code}"


CONV = "m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) { c = Conv(x, W) y = Conv(c, V) }"
CONV_CONSTANTS: dict[str, Any] = {"W": (6, 3, 1, 1), "V": (2, 6, 1, 1)}


def _conv_with(made: AttributeProto) -> ModelProto:
    model = proto(CONV, **CONV_CONSTANTS)
    model.graph.node[1].attribute.append(made)
    return model


def _no_pads() -> ModelProto:
    return _conv_with(AttributeProto(name="pads", type=AttributeProto.INTS))


def _text_that_is_none() -> ModelProto:
    return _conv_with(AttributeProto(name="auto_pad", type=AttributeProto.STRING, s=b"\xff\xfe"))


def _no_channels() -> ModelProto:
    text = "m (float[N, 3] x) => (float[N, 2] y) { h = MatMul(x, A) y = MatMul(h, B) }"
    return proto(text, A=np.zeros((3, 0), np.float32), B=np.zeros((0, 2), np.float32))


def _empty_space() -> ModelProto:
    text = "m (float[0, 5, 6] x) => (float[0, 5, 2, 6] y) { h = MatMul(x, A) y = Reshape(h, k) }"
    return proto(text, A=(6, 12), k=[0, 5, 2, 6])


def _empty_part() -> ModelProto:
    """Four heads in three parts: two, two and none."""
    return proto(HEADS.replace("Split <axis = 0", "Split <axis = 2"), opset=18, **HEADS_CONSTANTS)


def _wrong_declarations() -> ModelProto:
    """The input was made smaller, and what is declared of inner tensors was not; ONNX Runtime makes do with it."""
    model = onnx.load(DEMO)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 3
    return model


def _missing_argument() -> ModelProto:
    model = proto(CALLS, **CONV_CONSTANTS)
    model.graph.node[1].input[0] = ""
    return model


def _cancelled() -> ModelProto:
    """What is left of a tensor without its mean has no mean: rounding errors are compared."""
    text = """m (float[N, 3, 6, 6] x) => (float[N, 4] y) {
        c = Conv(x, W) a = GlobalAveragePool(c) s = Sub(c, a) m = ReduceMean <axes = [2, 3], keepdims = 0> (s)
        y = MatMul(m, V)
    }"""
    return proto(text, W=(16, 3, 1, 1), V=(16, 4))


def _unknown_factor() -> ModelProto:
    """The shape of f is nowhere declared, that of the product is."""
    model = proto(HEADS, opset=18, **HEADS_CONSTANTS)
    tensor = next(t for t in model.graph.initializer if t.name == "flat")
    model.graph.initializer.remove(tensor)
    model.graph.input.append(onnx.helper.make_tensor_value_info("flat", TensorProto.INT64, [None]))
    return model


def _too_many_arguments() -> ModelProto:
    model = proto(CALLS, **CONV_CONSTANTS)
    model.graph.node[1].input.append("c")
    return model


def _output_twice() -> ModelProto:
    model = proto(CONV, **CONV_CONSTANTS)
    model.graph.output.add().CopyFrom(model.graph.output[0])
    return model


def _wide_blocks() -> ModelProto:
    text = (
        "m (float[N, 3, 4, 4] x) => (float[N, C, H, V] y) { c = Conv(x, W) y = SpaceToDepth <blocksize = 1048576> (c) }"
    )
    return proto(text, W=(6, 3, 1, 1))


def _wide_tiles() -> ModelProto:
    text = "m (float[N, 3] x) => (float[N, 3] y) { h = MatMul(x, A) t = Tile(h, k) y = ReduceMax <axes = [1]> (t) }"
    return proto(text, A=(3, 4), k=[1, 1 << 23])


def _large_constants() -> ModelProto:
    text = """m (float[N, 3] x) => (float[N, 3] y) {
        a = Expand(A, k) b = Mul(a, a) c = Mul(b, b) d = Mul(c, c) e = ReduceMax <keepdims = 0> (d) y = Add(x, e)
    }"""
    return proto(text, A=(3, 2), k=[1 << 21, 3, 2])


SMALLEST: dict[str, Callable[[], ModelProto]] = {
    f.__name__.strip("_"): f
    for f in (
        *(_no_pads, _text_that_is_none, _no_channels, _empty_space, _unknown_factor, _too_many_arguments),
        *(
            _empty_part,
            _wrong_declarations,
            _missing_argument,
            _cancelled,
            _output_twice,
            _wide_blocks,
            _wide_tiles,
            _large_constants,
        ),
    )
}
"""Files that once did harm."""


@pytest.fixture(scope="module")
def once_harmful() -> dict[str, Found]:
    return {found.case: found for found in examine_all(list(SMALLEST))}


@pytest.mark.parametrize("case", SMALLEST)
def test_what_once_did_harm(case: str, once_harmful: dict[str, Found]) -> None:
    assert once_harmful[case].outcome in ("fine", "refused"), once_harmful[case].detail
    assert not once_harmful[case].defect


@pytest.mark.parametrize(("what", "code"), [("while True: pass", -signal.SIGPROF), ("time.sleep(1)", 0)])
def test_work_is_limited_and_waiting_is_not(what: str, code: int) -> None:
    text = f"""
        import time
        from tests.test_fuzz import within

        with within(0.3):
            {what}
    """
    found = subprocess.run(
        [sys.executable, "-c", dedent(text)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert found.returncode == code, found.stderr
    assert ('File "<string>"' in found.stderr) == bool(code)


@pytest.mark.parametrize("part", range(2))
def test_corrupted_files_are_used_or_refused(part: int) -> None:
    cases = [str(i) for i in range(part, N_CASES, 2)]
    found = list(examine_all(cases))
    assert [f.case for f in found] == cases
    assert not [f.defect for f in found if f.defect]


ODD_JSON: list[Any] = [
    None,
    True,
    0,
    -1,
    10**30,
    1.5,
    float("nan"),
    "",
    "\ud800",
    [],
    {},
    [[]],
    [1, 1],
    [0, 2**63],
    [-1],
]


def _places(record: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yields the path to every value of a JSON record."""
    yield above
    inner = record.items() if isinstance(record, dict) else enumerate(record) if isinstance(record, list) else ()
    for key, value in inner:
        yield from _places(value, (*above, key))


def _odd_record(record: Any, rng: Rng) -> Any:
    """Returns a copy in which one value is lost, repeated or another."""
    made = json.loads(json.dumps(record))
    *above, last = _any(rng, [p for p in _places(made) if p])
    parent = made
    for key in above:
        parent = parent[key]
    how = rng.random()
    if how < 0.2:
        del parent[last]
    elif how < 0.4 and isinstance(parent, list):
        parent.append(parent[last])
    else:
        parent[last] = _any(rng, ODD_JSON)
    return made


def test_a_corrupted_plan_is_read_or_refused(tmp_path: Path) -> None:
    graph = build(CHAIN, **CHAIN_CONSTANTS)
    index = build_index(graph)
    path = tmp_path / "plan.json"
    rng = np.random.default_rng(0)
    write_plan(path, index, plan_of_mask(index, random_mask(index, rng)))
    text = path.read_text()
    deep = ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, "", text + text, "\ufeff" + text]
    texts = [json.dumps(_odd_record(json.loads(text), rng)) for _ in range(500)]
    cut_off = [text[: int(rng.integers(len(text)))] for _ in range(50)]
    for odd in (*texts, *deep, *cut_off):
        path.write_text(odd)
        with contextlib.suppress(PlanError):
            assert read_plan(path, index).mask(index).any()


@pytest.mark.parametrize("command", ["inspect", "prune", "apply"])
@pytest.mark.parametrize("case", ["truncated", "too_many_arguments", "output_twice"])
def test_the_command_line_refuses_corrupted_files(command: str, case: str, tmp_path: Path) -> None:
    data = Path(DEMO).read_bytes()[:10_000] if case == "truncated" else _case(case)[1]
    (tmp_path / "m.onnx").write_bytes(data)
    (tmp_path / "p.json").write_text("{}")
    options = {
        "inspect": [],
        "prune": "--flops 0.5 --search uniform --recover none -o s.onnx".split(),
        "apply": "p.json -o s.onnx".split(),
    }
    code = [sys.executable, "-c", "from bocr_onnx.cli.main import run; run()", command, "m.onnx", *options[command]]
    found = subprocess.run(code, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "Traceback" not in found.stderr
    assert found.returncode == 2 or (case == "output_twice" and found.returncode == 0)
    assert "error" in found.stderr or not found.returncode


def main(words: Sequence[str]) -> None:
    if words[0] != "case":
        serve(words)
        return
    what, data = _case(words[1])
    print(what)
    if len(words) > 2:
        Path(words[2]).write_bytes(data)
    found = examine(words[1], what, data)
    print(found.outcome, found.detail, f"{found.seconds:.1f} s, {found.mebibytes} MiB", sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
