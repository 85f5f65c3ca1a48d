from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from bocr_onnx.graph import from_proto
from bocr_onnx.groups import build_index
from bocr_onnx.slimming import structure_digest
from tests.oracle import proto

TEXT = """m (float[N, 3, 8, 8] x, bool k) => (float[N, 5] y) {
    c = Conv <pads = [1, 1, 1, 1]> (x, W, wb)
    r = Resize <mode = "nearest"> (c, , S)
    e = LeakyRelu <alpha = 0.1> (r)
    p = Pad (e, A)
    i = If (k) <
        then_branch = t () => (float[N, 8, 18, 18] u) { v = Constant <value = float {2.0}> ()  u = Mul(p, v) },
        else_branch = f () => (float[N, 8, 18, 18] w) { w = Neg(p) }
    >
    d = Conv <kernel_shape = [2, 2], strides = [2, 2]> (i, U, wb)
    f = Reshape(d, T)
    g = Gemm(f, G, gb)
    h = Relu(g)
    q = DequantizeLinear(Q, qs, qz)
    y = MatMul(h, q)
}"""
CONSTANTS: dict[str, Any] = {
    "W": (8, 3, 3, 3), "wb": (8,), "S": np.array([1, 1, 2, 2], np.float32), "A": [0, 0, 1, 1, 0, 0, 1, 1],
    "U": (8, 8, 2, 2), "T": [0, -1], "G": (648, 6), "gb": (6,), "Q": np.arange(30, dtype=np.int32).reshape(6, 5),
    "qs": np.array(0.1, np.float32), "qz": np.array(0, np.int32),
}  # fmt: skip


def digest(text: str = TEXT, *, change: Callable[[ModelProto], object] | None = None, **constants: Any) -> str:
    made = proto(text, **{"seed": 0, **CONSTANTS, **constants})
    if change is not None:
        change(made)
    graph = from_proto(made)
    return structure_digest(build_index(graph))


def renamed(made: ModelProto) -> None:
    """Gives every tensor but inputs and outputs another name, as another exporter would."""
    keep = {"x", "k", "y", ""}

    def name(old: str) -> str:
        return old if old in keep else f"t/{old}"

    def walk(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            node.input[:] = map(name, node.input)
            node.output[:] = map(name, node.output)
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    walk(attribute.g)
        for value in (*graph.initializer, *graph.output):
            value.name = name(value.name)

    walk(made.graph)


def documented(made: ModelProto) -> None:
    made.doc_string = made.graph.doc_string = made.graph.node[0].doc_string = "build 4711"
    made.graph.node[0].attribute[0].doc_string = made.graph.initializer[0].doc_string = "build 4711"
    made.producer_name, made.producer_version, made.model_version = "another", "2", 7
    made.graph.name = "night"
    made.metadata_props.add(key="commit", value="abc")


def as_nodes(made: ModelProto) -> None:
    """Stores the constants of the last nodes as Constant nodes, and a bias after an Identity."""
    stored = {t.name: t for t in made.graph.initializer}
    first = [onnx.helper.make_node("Constant", [], ["T"], value_ints=[0, -1])]
    first.append(onnx.helper.make_node("Constant", [], ["gb"], value=stored["gb"]))
    first.append(onnx.helper.make_node("Identity", ["wb"], ["wb2"]))
    conv = next(n for n in made.graph.node if n.output[0] == "d")
    conv.input[2] = "wb2"
    nodes = [*first, *made.graph.node]
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del made.graph.node[:]
    made.graph.node.extend(copies)
    keep = [onnx.TensorProto.FromString(t.SerializeToString()) for n, t in stored.items() if n not in ("T", "gb")]
    del made.graph.initializer[:]
    made.graph.initializer.extend(keep)


def named_nodes(made: ModelProto) -> None:
    for number, node in enumerate(made.graph.node):
        node.name = f"n{number}"


def unread(made: ModelProto) -> None:
    made.graph.initializer.append(numpy_helper.from_array(np.array(7), "num_batches_tracked"))


SAME: dict[str, dict[str, Any]] = {
    "weights": {"seed": 1},
    "quantized weights": {"Q": np.arange(30, dtype=np.int32).reshape(6, 5)[::-1].copy()},
    "scales": {"qs": np.array(0.2, np.float32)},
    "documented": {"change": documented},
    "tensors renamed": {"change": renamed},
    "nodes renamed": {"change": named_nodes},
    "a constant nobody reads": {"change": unread},
    "a constant of a branch": {"text": TEXT.replace("{2.0}", "{3.0}")},
    "open axis renamed": {"text": TEXT.replace("[N,", "[batch,")},
}


@pytest.mark.parametrize("case", SAME)
def test_what_training_and_exporters_change_does_not_count(case: str) -> None:
    assert digest(**SAME[case]) == digest()


def test_how_constants_are_stored_does_not_count() -> None:
    def both(made: ModelProto) -> None:
        named_nodes(made)
        as_nodes(made)

    assert digest(change=both) == digest(change=named_nodes)


def of(text: str, **settings: Any) -> str:
    graph = from_proto(proto(text, **settings))
    return structure_digest(build_index(graph))


def test_a_newer_operator_set_counts_only_where_an_operator_has_changed() -> None:
    text = "m (float[N, 3] x) => (float[N, 2] y) { h = MatMul(x, a)  r = Softmax <axis = 1> (h)  y = MatMul(r, b) }"
    constants = {"a": (3, 8), "b": (8, 2)}
    assert of(text, opset=14, **constants) == of(text, opset=17, **constants)
    assert of(text, opset=12, **constants) != of(text, opset=13, **constants)


def shortened(made: ModelProto) -> None:
    """Takes the last Relu out."""
    product = next(n for n in made.graph.node if n.op_type == "MatMul")
    product.input[0] = "g"
    made.graph.node.remove(next(n for n in made.graph.node if n.op_type == "Relu"))


OTHER: dict[str, dict[str, Any]] = {
    "attribute as integers": {"text": TEXT.replace("pads = [1, 1, 1, 1]", "pads = [2, 2, 0, 0]")},
    "attribute as text": {"text": TEXT.replace('"nearest"', '"linear"')},
    "attribute as fraction": {"text": TEXT.replace("0.1", "0.2")},
    "operator": {"text": TEXT.replace("Relu(g)", "Sigmoid(g)")},
    "operator is gone": {"change": shortened},
    "operator of a branch": {"text": TEXT.replace("Neg(p)", "Abs(p)")},
    "wiring of a branch": {"text": TEXT.replace("Mul(p, v)", "Mul(v, p)")},
    "Reshape target": {"T": [-1, 648]},
    "Pad amounts": {"A": [0, 0, 2, 0, 0, 0, 0, 2]},
    "name of an input": {"text": TEXT.replace("] x,", "] z,").replace("(x,", "(z,")},
    "name of an output": {"text": TEXT.replace("] y)", "] z)").replace("y = MatMul", "z = MatMul")},
    "shape of an input": {"text": TEXT.replace("[N, 3", "[2, 3").replace("[N, 5", "[2, 5").replace("[N, 8", "[2, 8")},
    "shape of a constant": {"gb": (1, 6)},
    "element type of a constant": {"Q": np.arange(30, dtype=np.int8).reshape(6, 5), "qz": np.array(0, np.int8)},
}


@pytest.mark.parametrize("case", OTHER)
def test_what_a_cut_depends_on_counts(case: str) -> None:
    assert digest(**OTHER[case]) != digest()


def test_the_scales_of_a_resize_count() -> None:
    text = "m (float[N, 3, 8, 8] x) => (float[N, 3, 1, 1] y) { r = Resize(x, , S)  y = GlobalAveragePool(r) }"
    scales = np.array([1, 1, 2, 2], np.float32)
    assert of(text, S=scales) != of(text, S=scales + scales * (scales > 1))


def test_wiring_counts_where_all_operators_are_the_same() -> None:
    text = "m (float[N, 4] x) => (float[N, 4] y) { a = Relu(x)  b = Neg(a)  y = Sub(a, b) }"
    assert len({of(text), of(text.replace("Sub(a, b)", "Sub(b, a)")), of(text.replace("Neg(a)", "Neg(x)"))}) == 3


def test_widths_and_members_of_groups_count() -> None:
    text = "m (float[N, 3] x) => (float[N, 2] y) { h = MatMul(x, a)  r = Relu(h)  y = MatMul(r, b) }"
    graph = from_proto(proto(text, a=(3, 8), b=(8, 2)))
    index = build_index(graph)
    first, *others = index.groups
    assert len(first.members) > 1
    for group in (
        replace(first, n_channels=9),
        replace(first, members=first.members[1:]),
        replace(first, members=(replace(first.members[0], width=9), *first.members[1:])),
        replace(first, members=(replace(first.members[0], axis=3), *first.members[1:])),
    ):
        assert structure_digest(replace(index, groups=(group, *others))) != structure_digest(index)


def test_every_kind_of_attribute_is_read() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "odd" : 1]> m (float[N, 4] x) => (float[N, 4] y) {
        s = Constant <value_strings = ["a", "b"]> ()
        n = Constant <value_float = 2.0> ()
        z = odd.Op <t = float[2] {1.0, 2.0}, g = b () => (float w) { w = Identity(n) }, f = [1.5], s = ["u"]> (x, s, n)
        y = Relu(z)
    }"""
    assert re.fullmatch("[0-9a-f]{64}", of(text))
    for old, new in (
        ('["u"]', '["v"]'),
        ("[1.5]", "[2.5]"),
        ("float[2] {1.0, 2.0}", "float[1] {1.0}"),
        ("s, n)", "n, s)"),
    ):
        assert of(text) != of(text.replace(old, new))
    assert of(text) == of(text.replace("{1.0, 2.0}", "{1.0, 3.0}"))
