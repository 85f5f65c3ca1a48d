from __future__ import annotations

import numpy as np
import pytest

from bocr_onnx.groups import build_index
from bocr_onnx.slimming import cut
from tests.oracle import bn, build, check, random_mask, reasons, widths


def test_batch_normalization_is_cut_with_its_channels() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            c = Conv(x, W)
            n = BatchNormalization <epsilon = 0.001> (c, bn_s, bn_b, bn_m, bn_v)
            r = Relu(n)
            y = Conv(r, V)
        }""",
        W=(6, 3, 1, 1),
        V=(2, 6, 1, 1),
        **bn(6),
    )
    index = check(graph)
    assert widths(index) == {"Conv_0": 6}
    assert [m.tensor for m in index.groups[0].members] == ["W", "bn_s", "bn_b", "bn_m", "bn_v", "V"]


def test_batch_normalization_of_features() -> None:
    graph = build(
        """m (float[N, 3] x) => (float[N, 2] y) {
            g = MatMul(x, W)
            n = BatchNormalization(g, bn_s, bn_b, bn_m, bn_v)
            y = MatMul(n, V)
        }""",
        W=(3, 6),
        V=(6, 2),
        **bn(6),
    )
    assert widths(check(graph)) == {"MatMul_0": 6}


def test_instance_normalization_takes_its_statistics_per_channel() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            c = Conv <pads = [1, 1, 1, 1]> (x, W)
            n = InstanceNormalization(c, s, b)
            r = Relu(n)
            y = Conv(r, V)
        }""",
        W=(6, 3, 3, 3),
        V=(2, 6, 1, 1),
        s=(6,),
        b=(6,),
    )
    assert widths(check(graph)) == {"Conv_0": 6}


def test_computed_statistics_freeze() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x, float[6] s) => (float[N, 2, 4, 4] y) {
            c = Conv(x, W)
            n = InstanceNormalization(c, s, b)
            y = Conv(n, V)
        }""",
        W=(6, 3, 1, 1),
        V=(2, 6, 1, 1),
        b=(6,),
    )
    index = build_index(graph)
    assert index.groups == ()
    assert reasons(index)["InstanceNormalization_1"] == "a normalization constant is computed"


def test_channels_on_another_axis_than_the_normalized_one_are_frozen() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 4, 2, 4] y) {
            c = Conv(x, W)
            t = Transpose <perm = [0, 2, 1, 3]> (c)
            n = InstanceNormalization(t, s, b)
            u = Transpose <perm = [0, 2, 1, 3]> (n)
            d = Conv(u, V)
            e = Conv(d, U)
            y = Transpose <perm = [0, 2, 1, 3]> (e)
        }""",
        W=(6, 3, 1, 1),
        V=(5, 6, 1, 1),
        U=(2, 5, 1, 1),
        s=(4,),
        b=(4,),
    )
    index = check(graph)
    assert widths(index) == {"Conv_4": 5}
    assert "an axis that is normalized over" in reasons(index)["InstanceNormalization_2"]


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize(
    ("opset", "axis", "refused"),
    [(17, 1, True), (17, -3, True), (17, -1, False), (17, 2, False), (12, 1, True), (12, 0, True), (12, 2, False)],
)
def test_softmax_passes_only_channels_it_does_not_mix(op: str, opset: int, axis: int, refused: bool) -> None:
    graph = build(
        f"""m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {{
            c = Conv(x, W)
            s = {op} <axis = {axis}> (c)
            d = Conv(s, V)
            y = Conv(d, U)
        }}""",
        opset=opset,
        W=(6, 3, 1, 1),
        V=(5, 6, 1, 1),
        U=(2, 5, 1, 1),
    )
    index = check(graph)
    assert widths(index) == ({"Conv_2": 5} if refused else {"Conv_0": 6, "Conv_2": 5})
    assert (reasons(index).get(f"{op}_1") == f"{op} normalizes over the channels") is refused


def test_softmax_defaults_to_the_last_axis_and_before_opset_13_to_all_after_the_first() -> None:
    text = """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) { c = Conv(x, W) s = Softmax(c) y = Conv(s, V) }"""
    constants = {"W": (6, 3, 1, 1), "V": (2, 6, 1, 1)}
    assert widths(check(build(text, opset=13, **constants))) == {"Conv_0": 6}
    assert build_index(build(text, opset=12, **constants)).groups == ()


def test_layer_normalization_over_the_channels_is_refused() -> None:
    graph = build(
        """m (float[N, 3] x) => (float[N, 2] y) {
            g = MatMul(x, W)
            n = LayerNormalization(g, s, b)
            y = MatMul(n, V)
        }""",
        W=(3, 6),
        V=(6, 2),
        s=np.ones(6, np.float32),
        b=(6,),
    )
    index = build_index(graph)
    assert index.groups == ()
    assert reasons(index)["LayerNormalization_1"] == "LayerNormalization normalizes over the channels"


def test_group_normalization_keeps_its_blocks_whole() -> None:
    """Its first version, of opset 18, is deprecated and no valid model has it."""
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            c = Conv <pads = [1, 1, 1, 1]> (x, W)
            g = GroupNormalization <num_groups = 3> (c, s, b)
            r = Relu(g)
            y = Conv(r, V)
        }""",
        opset=21,
        ir=10,
        W=(6, 3, 3, 3),
        s=(6,),
        b=(6,),
        V=(2, 6, 1, 1),
    )
    index = check(graph)
    assert widths(index) == {"Conv_0": 3}
    assert [(m.tensor, m.width) for m in index.groups[0].members] == [("W", 6), ("s", 6), ("b", 6), ("V", 6)]
    mask = random_mask(index, 0)
    node = cut(index, mask).graph.node[1]
    assert [a.i for a in node.attribute if a.name == "num_groups"] == [mask.sum()]


@pytest.mark.parametrize("kept", [True, False], ids=["back to its own shape", "back to a constant"])
def test_group_normalization_as_torch_writes_it(kept: bool) -> None:
    graph = build(
        f"""m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {{
            c = Conv <pads = [1, 1, 1, 1]> (x, W)
            p = Reshape(c, split)
            n = InstanceNormalization(p, ones, zeros)
            {"shape = Shape(c)" if kept else ""}
            q = Reshape(n, shape)
            m = Mul(q, k)
            a = Add(m, d)
            r = Relu(a)
            y = Conv(r, V)
        }}""",
        split=[0, 2, -1],
        ones=np.ones(2, np.float32),
        zeros=np.zeros(2, np.float32),
        W=(6, 3, 3, 3),
        k=(6, 1, 1),
        d=(6, 1, 1),
        V=(2, 6, 1, 1),
        **({} if kept else {"shape": [-1, 6, 4, 4]}),
    )
    index = check(graph)
    assert widths(index) == {"Conv_0": 2}
    assert [(m.tensor, m.width) for m in index.groups[0].members] == [
        ("W", 6), ("ones", 2), ("zeros", 2), ("k", 6), ("d", 6), ("V", 6)
    ]  # fmt: skip


def test_the_width_inside_a_block_is_cut_and_the_normalized_stream_is_not() -> None:
    """ConvNeXt: depthwise, LayerNormalization over the last axis, two linear layers, a residual."""
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            c = Conv(x, W)
            d = Conv <group = 6, pads = [1, 1, 1, 1]> (c, D)
            t = Transpose <perm = [0, 2, 3, 1]> (d)
            n = LayerNormalization(t, s, b)
            h = MatMul(n, A)
            a = Add(h, ab)
            g = Sigmoid(a)
            o = MatMul(g, B)
            u = Transpose <perm = [0, 3, 1, 2]> (o)
            e = Add(u, c)
            y = Conv(e, V)
        }""",
        W=(6, 3, 1, 1),
        D=(6, 1, 3, 3),
        s=(6,),
        b=(6,),
        A=(6, 24),
        ab=(24,),
        B=(24, 6),
        V=(2, 6, 1, 1),
    )
    index = check(graph)
    assert widths(index) == {"MatMul_4": 24}
    refusal = next(r for r in index.refusals if r.node == "LayerNormalization_3")
    assert refusal.reason == "LayerNormalization normalizes over the channels"
    assert refusal.nodes == (0, 1, 4, 7, 10)


MIXING = {
    "RMSNormalization over them": (23, "RMSNormalization <axis = 1> (c, k)", {"k": (6, 4, 4)}, True),
    "RMSNormalization beside them": (23, "RMSNormalization <axis = -1> (c, k)", {"k": (4,)}, False),
    "LayerNormalization beside them": (17, "LayerNormalization <axis = 2> (c, k)", {"k": (4, 4)}, False),
    "LpNormalization over them": (17, "LpNormalization <axis = 1> (c)", {}, True),
    "LpNormalization beside them": (17, "LpNormalization <axis = -1, p = 1> (c)", {}, False),
    "MeanVarianceNormalization over them": (17, "MeanVarianceNormalization <axes = [0, 1, 2, 3]> (c)", {}, True),
    "MeanVarianceNormalization beside them": (17, "MeanVarianceNormalization <axes = [2, 3]> (c)", {}, False),
    "MeanVarianceNormalization by default": (17, "MeanVarianceNormalization(c)", {}, False),
    "LRN": (17, "LRN <size = 3> (c)", {}, True),
}


@pytest.mark.parametrize("case", MIXING)
def test_a_normalization_passes_only_channels_it_does_not_mix(case: str) -> None:
    opset, node, constants, refused = MIXING[case]
    graph = build(
        f"""m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {{
            c = Conv(x, W)
            n = {node}
            d = Conv(n, V)
            y = Conv(d, U)
        }}""",
        opset=opset,
        ir=8 if opset < 23 else 11,
        W=(6, 3, 1, 1),
        V=(5, 6, 1, 1),
        U=(2, 5, 1, 1),
        **constants,
    )
    index = check(graph)
    assert widths(index) == ({"Conv_2": 5} if refused else {"Conv_0": 6, "Conv_2": 5})
    op = node.split(maxsplit=1)[0].split("(")[0]
    assert (reasons(index).get(f"{op}_1") == f"{op} normalizes over the channels") is refused
