from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from bocr_onnx.graph import from_proto, load
from bocr_onnx.groups import build_index
from bocr_onnx.slimming import cut
from tests.oracle import bn, build, check, drawn, proto, random_mask, reasons, widths


def test_a_group_is_what_lies_on_the_same_axes() -> None:
    """A padded stream splits into the part it shares with the earlier stage and the part that is new."""
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            c = Conv(x, W)
            a = Conv(c, A)
            p = Pad(c, two)
            s = Add(a, p)
            b = Conv(s, B)
            q = Pad(s, three)
            t = Add(b, q)
            y = Conv(t, V)
        }""",
        two=[0, 1, 0, 0, 0, 1, 0, 0],
        three=[0, 0, 0, 0, 0, 3, 0, 0],
        W=(4, 3, 1, 1),
        A=(6, 4, 1, 1),
        B=(9, 6, 1, 1),
        V=(2, 9, 1, 1),
    )
    index = check(graph, seeds=range(5))
    assert widths(index) == {"Conv_0": 4, "Conv_1": 2, "Conv_4": 3}
    assert index.n_channels == 9
    assert [g.span for g in index.groups] == [slice(0, 4), slice(4, 6), slice(6, 9)]
    assert index.group("Conv_1").start == 4
    assert index.axes["p"][1].tolist() == [4, 0, 1, 2, 3, 5]
    assert index.axes["t"][1].tolist() == [4, 0, 1, 2, 3, 5, 6, 7, 8]


def test_a_signature_counts_how_often_an_axis_carries_a_channel() -> None:
    """Channels that lie twice on an axis are a group of their own, or the cost would not be linear in its width."""
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            c = Conv(x, W)
            h = Slice(c, zero, half, one)
            d = Concat <axis = 1> (c, h)
            y = Conv(d, V)
        }""",
        zero=[0],
        half=[4],
        one=[1],
        W=(8, 3, 1, 1),
        V=(2, 12, 1, 1),
    )
    index = check(graph)
    assert widths(index) == {"Conv_0": 4, "Conv_0:2": 4}
    assert {m.width for m in index.groups[0].members if m.tensor == "V"} == {8}


def test_the_output_and_the_input_keep_their_channels() -> None:
    graph = build(
        "m (float[N, 3, 4, 4] x) => (float[N, 6, 4, 4] y, float[N, 8, 4, 4] z) {"
        " c = Conv(x, W) y = Relu(c) d = Conv(c, U) z = Relu(d) }",
        W=(6, 3, 1, 1),
        U=(8, 6, 1, 1),
    )
    index = build_index(graph)
    assert index.groups == ()
    assert reasons(index) == {
        "Relu_1": "they are the model's output 'y'",
        "Relu_3": "they are the model's output 'z'",
    }
    assert [r.nodes for r in index.refusals] == [(0, 2), (2,)]


def test_a_group_of_one_channel_is_none() -> None:
    graph = build(
        "m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) { c = Conv(x, W) y = Conv(c, V) }",
        W=(1, 3, 1, 1),
        V=(2, 1, 1, 1),
    )
    index = build_index(graph)
    assert (index.groups, index.n_channels) == ((), 0)


TWICE = """m (float[N, 6, 4, 4] x) => (float[N, 2, 4, 4] y) {
    a = Conv(x, W0)
    b = Conv(a, W)
    r = Relu(b)
    c = Conv(r, W)
    y = Conv(c, V)
}"""


def test_a_weight_that_two_convolutions_share_ties_them_and_stays_one_tensor() -> None:
    graph = build(TWICE, W0=(6, 6, 1, 1), W=(6, 6, 1, 1), V=(2, 6, 1, 1))
    index = check(graph)
    assert widths(index) == {"Conv_0": 6}
    slim = cut(index, random_mask(index, 0))
    assert [t.name for t in slim.graph.initializer] == ["W0", "W", "V"]


def test_a_weight_shared_with_a_reader_of_the_input_is_refused() -> None:
    graph = build(
        "m (float[N, 6, 4, 4] x) => (float[N, 2, 4, 4] y) { a = Conv(x, W) b = Conv(a, W) y = Conv(b, V) }",
        W=(6, 6, 1, 1),
        V=(2, 6, 1, 1),
    )
    index = build_index(graph)
    assert index.groups == ()
    assert reasons(index)["Conv_1"] == "weight 'W' is shared with a fixed reader"


def test_a_bias_that_two_convolutions_share_leaves_them_independent() -> None:
    """The torchscript exporter stores equal initializers once."""
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            a = Conv(x, W, b)
            r = Relu(a)
            c = Conv(r, U, b)
            s = Relu(c)
            y = Conv(s, V)
        }""",
        W=(6, 3, 1, 1),
        U=(6, 6, 1, 1),
        V=(2, 6, 1, 1),
        b=(6,),
    )
    index = check(graph, seeds=range(4))
    assert widths(index) == {"Conv_0": 6, "Conv_2": 6}
    mask = np.ones(12, dtype=bool)
    mask[:2] = mask[6:9] = False
    slim = from_proto(cut(index, mask))
    assert [slim.shapes[slim.nodes[i].inputs[2]] for i in (0, 2)] == [(4,), (3,)]
    assert "b" not in {t.name for t in slim.proto.graph.initializer}


def test_normalization_constants_that_two_layers_share_leave_them_independent() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            a = Conv(x, W)
            n = BatchNormalization(a, bn_s, bn_b, bn_m, bn_v)
            c = Conv(n, U)
            o = BatchNormalization(c, bn_s, bn_b, bn_m, bn_v)
            y = Conv(o, V)
        }""",
        W=(6, 3, 1, 1),
        U=(6, 6, 1, 1),
        V=(2, 6, 1, 1),
        **bn(6),
    )
    assert widths(check(graph)) == {"Conv_0": 6, "Conv_2": 6}


def test_an_alias_of_an_initializer_is_cut_and_leaves_no_dead_node() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            b2 = Identity(b)
            a = Conv(x, W, b)
            c = Conv(a, U, b2)
            y = Conv(c, V)
        }""",
        W=(6, 3, 1, 1),
        U=(6, 6, 1, 1),
        V=(2, 6, 1, 1),
        b=(6,),
    )
    index = check(graph)
    assert widths(index) == {"Conv_0": 6, "Conv_1": 6}
    slim = cut(index, random_mask(index, 0))
    assert [n.op_type for n in slim.graph.node] == ["Conv", "Conv", "Conv"]


def test_weights_in_constant_nodes() -> None:
    made = proto("m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) { c = Conv(x, W, b) r = Relu(c) y = Conv(r, V) }")
    for name, shape in (("V", (2, 6, 1, 1)), ("b", (6,)), ("W", (6, 3, 1, 1))):
        tensor = onnx.numpy_helper.from_array(drawn(shape, 0, name))
        made.graph.node.insert(0, onnx.helper.make_node("Constant", [], [name], value=tensor))
    index = check(from_proto(made))
    assert widths(index) == {"Conv_3": 6}


def test_a_transposed_weight_is_folded_and_cut() -> None:
    """Exported linear layers read Transpose(initializer)."""
    graph = build(
        "m (float[N, 3] x) => (float[N, 2] y) { t = Transpose(A) a = MatMul(x, t) r = Relu(a) y = MatMul(r, B) }",
        A=(6, 3),
        B=(6, 2),
    )
    index = check(graph)
    assert widths(index) == {"MatMul_1": 6}
    assert {n.op_type for n in cut(index, random_mask(index, 0)).graph.node} == {"MatMul", "Relu"}


def test_what_a_subgraph_reads_is_frozen_and_the_rest_is_cut() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x, bool b) => (float[N, 2, 4, 4] y) {
            c = Conv(x, W)
            q = If (b) <
                then_branch = t () => (float[N, 6, 4, 4] a) { a = Relu(c) },
                else_branch = e () => (float[N, 6, 4, 4] a) { a = Neg(c) }
            >
            d = Conv(q, U)
            y = Conv(d, V)
        }""",
        W=(6, 3, 1, 1),
        U=(5, 6, 1, 1),
        V=(2, 5, 1, 1),
    )
    index = check(graph)
    assert widths(index) == {"Conv_2": 5}
    assert reasons(index)["If_1"] == "a subgraph reads the channels"


def test_a_group_is_named_after_its_first_maker_and_names_are_unique() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            [stem] c = Conv(x, W)
            [deep] d = Conv <group = 6> (c, D)
            [head] y = Conv(d, V)
        }""",
        W=(6, 3, 1, 1),
        D=(6, 1, 1, 1),
        V=(2, 6, 1, 1),
    )
    assert widths(check(graph)) == {"stem": 6}


RESNET20 = [16, 16, 16, 16, 32, 16, 32, 32, 64, 32, 64, 64]
"""Stem stream, three insides, then per stage: inside, the new half of the stream, two insides."""


@pytest.mark.shared
@pytest.mark.parametrize("export", ["bn", "folded", "dynamo"])
def test_every_export_of_resnet20_has_the_same_groups(shared: Path, export: str) -> None:
    graph = load(shared / "models" / f"resnet20_{export}.onnx")
    index = build_index(graph)
    assert [g.n_channels for g in index.groups] == RESNET20
    assert [(r.op, r.n_channels) for r in index.refusals] == [("Gemm", 10)]


@pytest.mark.shared
@pytest.mark.parametrize("export", ["bn", "dynamo"])
def test_a_cut_of_resnet20_is_proved(shared: Path, export: str) -> None:
    check(load(shared / "models" / f"resnet20_{export}.onnx"), seeds=(0,))


@pytest.mark.shared
def test_mobilenet_groups_are_its_pointwise_layers(shared: Path) -> None:
    index = check(load(shared / "models" / "mobilenet_v1_0.5_160.onnx"), seeds=(0,))
    assert [g.n_channels for g in index.groups] == [16, 32, 64, 64, 128, 128, *[256] * 6, 512, 512]


def test_two_outputs_read_the_same_channels() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y, float[N, 5] z) {
            c = Conv(x, W)
            y = Conv(c, V)
            g = GlobalAveragePool(c)
            f = Flatten(g)
            z = Gemm(f, G)
        }""",
        W=(6, 3, 1, 1),
        V=(2, 6, 1, 1),
        G=(6, 5),
    )
    assert widths(check(graph)) == {"Conv_0": 6}


def test_two_inputs_through_one_weight_are_one_group() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x, float[N, 3, 4, 4] z) => (float[N, 2, 4, 4] y) {
            a = Conv(x, W, b)
            c = Conv(z, W, b)
            p = Conv(a, V)
            q = Conv(c, U)
            y = Add(p, q)
        }""",
        W=(6, 3, 1, 1),
        b=(6,),
        V=(2, 6, 1, 1),
        U=(2, 6, 1, 1),
    )
    index = check(graph)
    assert widths(index) == {"Conv_0": 6}
    assert {t.name for t in cut(index, random_mask(index, 0)).graph.initializer} == {"W", "b", "V", "U"}


def test_the_rest_is_cut_after_a_custom_operator_whose_output_is_declared() -> None:
    graph = build(
        """<ir_version: 8, opset_import: ["" : 17, "acme" : 1]>
        m (float[N, 3, 4, 4] x) => (float[N, 2] y) <float[N, 6, 4, 4] q>
        {
            c = Conv(x, W) q = acme.Mystery(c) d = Conv(q, V) r = Relu(d)
            p = GlobalAveragePool(r) f = Flatten(p) y = Gemm(f, U)
        }""",
        W=(6, 3, 1, 1),
        V=(8, 6, 1, 1),
        U=(8, 2),
    )
    index = build_index(graph)
    assert widths(index) == {"Conv_2": 8}
    assert reasons(index)["Mystery_1"] == "operator acme.Mystery has no rule"
