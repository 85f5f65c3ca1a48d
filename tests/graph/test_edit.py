from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from bocr_onnx.graph import Array, Edit, ModelGraph, apply_edit, from_proto
from tests.oracle import build, drawn, proto, run

PLAIN = "m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) { c = Conv(x, W, b) r = Relu(c) y = Conv(r, V, d) }"
CONSTANTS = {"W": (6, 3, 1, 1), "b": (6,), "V": (2, 6, 1, 1), "d": (2,)}


def stored(model: ModelProto) -> dict[str, Array]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def copy_of(model: ModelProto) -> ModelProto:
    made = ModelProto()
    made.CopyFrom(model)
    return made


def serialized(model: ModelProto) -> bytes:
    return model.SerializeToString(deterministic=True)


def test_no_change_is_no_change() -> None:
    graph = build(PLAIN, **CONSTANTS)
    before = serialized(graph.proto)
    made = apply_edit(graph, Edit())
    assert serialized(made) == before
    assert made is not graph.proto


def test_a_constant_with_one_reader_is_replaced_in_place() -> None:
    graph = build(PLAIN, **CONSTANTS)
    before = serialized(graph.proto)
    W = drawn((4, 3, 1, 1), 5)
    made = apply_edit(graph, Edit({(0, 1): W}))
    assert serialized(graph.proto) == before
    assert [t.name for t in made.graph.initializer] == ["W", "b", "V", "d"]
    assert np.array_equal(stored(made)["W"], W)
    assert stored(made)["b"].shape == (6,)
    assert made.graph.node == graph.proto.graph.node


SHARED = "m (float[N, 4] x) => (float[N, 4] y) { a = Add(x, k) b = Relu(a) y = Add(b, k) }"


def test_a_constant_whose_readers_agree_stays_one_tensor() -> None:
    graph = build(SHARED, k=(4,))
    new = drawn((4,), 5)
    made = apply_edit(graph, Edit({(0, 1): new, (2, 1): new.copy()}))
    assert list(stored(made)) == ["k"]
    assert np.array_equal(stored(made)["k"], new)


def test_a_constant_whose_readers_differ_is_stored_once_for_each() -> None:
    graph = build(SHARED, k=(4,))
    a, b = drawn((4,), 5), drawn((4,), 6)
    made = apply_edit(graph, Edit({(0, 1): a, (2, 1): b}))
    assert "k" not in stored(made)
    assert np.array_equal(stored(made)[made.graph.node[0].input[1]], a)
    assert np.array_equal(stored(made)[made.graph.node[2].input[1]], b)
    onnx.checker.check_model(made, full_check=True)


def test_a_constant_that_only_one_of_two_readers_changes_stays_for_the_other() -> None:
    graph = build(SHARED, k=(4,))
    a = drawn((4,), 5)
    made = apply_edit(graph, Edit({(2, 1): a}))
    assert made.graph.node[0].input[1] == "k"
    assert np.array_equal(stored(made)["k"], graph.constants["k"])
    assert np.array_equal(stored(made)[made.graph.node[2].input[1]], a)


def test_two_readers_of_three_that_agree_share_the_new_tensor() -> None:
    graph = build(
        "m (float[N, 4] x) => (float[N, 4] y) { a = Add(x, k) b = Add(a, k) y = Add(b, k) }",
        k=(4,),
    )
    new = drawn((4,), 5)
    made = apply_edit(graph, Edit({(0, 1): new, (2, 1): new.copy()}))
    names = [n.input[1] for n in made.graph.node]
    assert names[0] == names[2] != names[1] == "k"
    assert len(stored(made)) == 2


def test_a_constant_that_a_subgraph_reads_is_not_changed_under_its_name() -> None:
    graph = build(
        """m (float[4] x, bool c) => (float[4] y) {
            a = Add(x, k)
            y = If (c) <
                then_branch = t () => (float[4] q) { q = Add(a, k) },
                else_branch = e () => (float[4] q) { q = Identity(a) }
            >
        }""",
        k=(4,),
    )
    made = apply_edit(graph, Edit({(0, 1): drawn((4,), 5)}))
    assert np.array_equal(stored(made)["k"], graph.constants["k"])
    assert made.graph.node[0].input[1] != "k"


def test_a_constant_that_is_an_output_is_not_changed_under_its_name() -> None:
    graph = build("m (float[4] x) => (float[4] y, float[4] k) { y = Add(x, k) }", k=(4,))
    made = apply_edit(graph, Edit({(0, 1): drawn((4,), 5)}))
    assert np.array_equal(stored(made)["k"], graph.constants["k"])


def test_what_the_edit_left_unread_goes_and_what_was_dead_before_stays() -> None:
    graph = build(
        """m (float[N, 3] x) => (float[N, 6] y) {
            i = Neg(A)
            t = Transpose(i)
            dead = Relu(Z)
            y = MatMul(x, t)
        }""",
        A=(6, 3),
        Z=(2,),
        unread=(3,),
    )
    made = apply_edit(graph, Edit({(3, 1): drawn((3, 6), 1)}))
    assert [n.op_type for n in made.graph.node] == ["Relu", "MatMul"]
    assert set(stored(made)) == {"Z", "unread", made.graph.node[1].input[1]}


def test_a_chain_that_something_else_reads_stays() -> None:
    graph = build(
        "m (float[N, 3] x) => (float[N, 6] y, float[3, 6] t) { t = Transpose(A) y = MatMul(x, t) }",
        A=(6, 3),
    )
    made = apply_edit(graph, Edit({(1, 1): drawn((3, 6), 1)}))
    assert [n.op_type for n in made.graph.node] == ["Transpose", "MatMul"]
    assert "A" in stored(made)


def test_old_files_keep_their_initializers_among_the_inputs() -> None:
    made = proto(
        """m (float[N, 3, 4, 4] x, float[6, 3, 1, 1] W, float[6] b, float[2, 6, 1, 1] V) => (float[N, 2, 4, 4] y) {
            c = Conv(x, W, b)
            s = Conv(c, V)
            y = Relu(s)
        }""",
        ir=3,
        opset=8,
        W=(6, 3, 1, 1),
        b=(6,),
        V=(2, 6, 1, 1),
    )
    graph = from_proto(made)
    edit = Edit(
        {(0, 1): drawn((4, 3, 1, 1), 1), (0, 2): drawn((4,), 1), (1, 1): drawn((2, 4, 1, 1), 1), (1, 2): drawn((2,), 1)}
    )
    slim = apply_edit(graph, edit)
    onnx.checker.check_model(slim, full_check=True)
    declared = {i.name: tuple(d.dim_value for d in i.type.tensor_type.shape.dim) for i in slim.graph.input}
    assert {k: v for k, v in declared.items() if k in stored(slim)} == {n: a.shape for n, a in stored(slim).items()}
    assert set(stored(slim)) < set(declared)
    assert from_proto(slim).inputs == ("x",)


def test_old_files_lose_the_inputs_of_initializers_that_go() -> None:
    graph = build("m (float[4] x, float[4] k) => (float[4] y) { a = Add(x, k) y = Add(a, k) }", ir=3, opset=8, k=(4,))
    slim = apply_edit(graph, Edit({(0, 1): drawn((4,), 1), (1, 1): drawn((4,), 2)}))
    onnx.checker.check_model(slim, full_check=True)
    assert {i.name for i in slim.graph.input} == {"x", *stored(slim)}
    assert "k" not in stored(slim)


def test_a_bias_after_the_last_input() -> None:
    graph = build("m (float[N, 3, 4, 4] x) => (float[N, 6, 4, 4] y) { y = Conv(x, W) }", W=(6, 3, 1, 1))
    bias = drawn((6,), 1)
    made = apply_edit(graph, Edit({(0, 2): bias}))
    feeds = {"x": drawn((2, 3, 4, 4), 9)}
    (before,), (after,) = run(graph.proto, feeds), run(made, feeds)
    np.testing.assert_allclose(after, before + bias[:, None, None], rtol=1e-5, atol=1e-6)


def test_optional_inputs_before_an_added_one_are_left_out() -> None:
    graph = build("m (float[4] x) => (float[4] y) { y = Clip(x) }")
    made = apply_edit(graph, Edit({(0, 2): np.array(0.5, np.float32)}))
    assert list(made.graph.node[0].input)[:2] == ["x", ""]
    assert run(made, {"x": np.array([-3, 0, 1, 2], np.float32)})[0].tolist() == [-3, 0, 0.5, 0.5]


def test_new_names_are_free() -> None:
    graph = build(SHARED, k=(4,), **{"k.slim": (4,), "k.slim_": (4,)})
    made = apply_edit(graph, Edit({(0, 1): drawn((4,), 1), (2, 1): drawn((4,), 2)}))
    names = [t.name for t in made.graph.initializer]
    assert len(set(names)) == len(names) == 4
    assert {"k.slim", "k.slim_"} < set(names)


@pytest.mark.parametrize("kind", ["raw_data", "int32_data"])
def test_half_precision_is_kept(kind: str) -> None:
    made = proto(
        "m (float16[N, 3, 4, 4] x) => (float16[N, 6, 4, 4] y) { y = Conv(x, W) }",
        W=drawn((6, 3, 1, 1), 0).astype(np.float16),
    )
    if kind == "int32_data":
        tensor = made.graph.initializer[0]
        bits = np.frombuffer(tensor.raw_data, np.uint16)
        tensor.ClearField("raw_data")
        tensor.int32_data.extend(bits.tolist())
    graph = from_proto(made)
    slim = apply_edit(graph, Edit({(0, 1): np.ones((6, 3, 1, 1), np.float32), (0, 2): np.ones(6, np.float32)}))
    assert [t.data_type for t in slim.graph.initializer] == [TensorProto.FLOAT16] * 2
    assert not slim.graph.initializer[0].int32_data
    assert all(a.dtype == np.float16 and (a == 1).all() for a in stored(slim).values())
    onnx.checker.check_model(slim, full_check=True)


@pytest.mark.parametrize("field", ["float_data", "raw_data"])
def test_typed_data_is_replaced(field: str) -> None:
    made = proto("m (float[3] x) => (float[3] y) { y = Add(x, k) }")
    values = np.arange(3, dtype=np.float32)
    if field == "float_data":
        made.graph.initializer.append(onnx.helper.make_tensor("k", TensorProto.FLOAT, [3], values.tolist()))
    else:
        made.graph.initializer.append(numpy_helper.from_array(values, "k"))
    slim = apply_edit(from_proto(made), Edit({(0, 1): values + 1}))
    assert stored(slim)["k"].tolist() == [1, 2, 3]
    assert not slim.graph.initializer[0].float_data


def test_attributes_are_set_and_added() -> None:
    graph = build(
        "m (float[N, 4, 4, 4] x) => (float[N, 4, A, B] y) { c = Conv <group = 4> (x, W) y = Relu(c) }", W=(4, 1, 1, 1)
    )
    made = apply_edit(graph, Edit(attributes={(0, "group"): 2, (0, "pads"): [1, 1, 1, 1]}))
    found = {a.name: onnx.helper.get_attribute_value(a) for a in made.graph.node[0].attribute}
    assert found == {"group": 2, "pads": [1, 1, 1, 1]}
    assert graph.nodes[0].attributes["group"] == 4


def documented() -> ModelProto:
    """Returns a model with something in every field that an edit must leave alone."""
    made = proto(PLAIN, **CONSTANTS)
    made.producer_name, made.producer_version, made.domain, made.model_version = "maker", "1.2", "org.acme", 7
    made.doc_string = "a model"
    made.opset_import.append(onnx.helper.make_opsetid("com.acme", 3))
    entry(made.metadata_props, "author", "me")
    made.graph.doc_string = "a graph"
    made.graph.name = "named"
    for node in made.graph.node:
        node.doc_string = "a node"
        entry(node.metadata_props, "source", "line 3")
    made.graph.initializer[0].doc_string = "weights"
    made.graph.input[0].doc_string = "images"
    annotation = made.graph.quantization_annotation.add()
    annotation.tensor_name = "r"
    entry(annotation.quant_parameter_tensor_names, "SCALE_TENSOR", "s")
    info = onnx.helper.make_tensor_value_info("c", 1, ["N", 6, 4, "W"])
    info.doc_string = "hidden"
    made.graph.value_info.append(info)
    return made


def entry(to: object, key: str, value: str) -> None:
    to.append(onnx.StringStringEntryProto(key=key, value=value))  # type: ignore[attr-defined]


def test_nothing_else_is_touched() -> None:
    """The edited model differs from the original in the named tensor and the declared widths, and in no other field."""
    graph = from_proto(documented())
    slim = apply_edit(graph, Edit({(0, 1): drawn((4, 3, 1, 1), 5)}, widths={"c": {1: 4, 3: 9}}))
    expected = copy_of(graph.proto)
    replaced = numpy_helper.from_array(drawn((4, 3, 1, 1), 5), "W")
    replaced.doc_string = "weights"
    expected.graph.initializer[0].CopyFrom(replaced)
    dims = expected.graph.value_info[0].type.tensor_type.shape.dim
    dims[1].dim_value = 4
    dims[3].ClearField("dim_param")
    for field in slim.DESCRIPTOR.fields:
        if field.name != "graph":
            assert getattr(slim, field.name) == getattr(expected, field.name), field.name
    for field in slim.graph.DESCRIPTOR.fields:
        assert getattr(slim.graph, field.name) == getattr(expected.graph, field.name), field.name
    assert serialized(slim) == serialized(expected)
    assert not slim.graph.value_info[0].type.tensor_type.shape.dim[3].WhichOneof("value")


def test_widths_of_outputs_and_inputs_are_declared() -> None:
    graph = build(PLAIN, **CONSTANTS)
    slim = apply_edit(graph, Edit(widths={"y": {1: 1, 0: 5}, "x": {1: 2}, "unknown": {0: 1}}))
    dims = {i.name: [d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim] for i in (
        *slim.graph.input, *slim.graph.output
    )}  # fmt: skip
    assert dims == {"x": ["N", 2, 4, 4], "y": ["N", 1, 4, 4]}


def test_nodes_that_the_file_holds_under_one_name_are_told_apart() -> None:
    graph: ModelGraph = build("m (float[4] x) => (float[4] y) { [n] a = Add(x, k) [n] y = Add(a, j) }", k=(4,), j=(4,))
    new = drawn((4,), 5)
    made = apply_edit(graph, Edit({(1, 1): new}))
    assert np.array_equal(stored(made)["j"], new)
    assert np.array_equal(stored(made)["k"], graph.constants["k"])
