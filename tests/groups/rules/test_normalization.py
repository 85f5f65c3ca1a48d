from __future__ import annotations

import numpy as np
import pytest

from bocr_onnx.groups import build_index
from tests.oracle import bn, build, check, reasons, widths


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
    assert "not normalized channel by channel" in reasons(index)["InstanceNormalization_2"]


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


def test_softmax_defaults_to_the_last_axis_and_before_opset_13_to_all_behind_the_first() -> None:
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
    assert reasons(index)["LayerNormalization_1"] == "operator ai.onnx.LayerNormalization has no rule"
