from __future__ import annotations

import pytest

from bocr_onnx.groups import Member, build_index
from bocr_onnx.slimming import cut
from tests.oracle import build, check, random_mask, reasons, widths

BIASES = pytest.mark.parametrize("bias", ["", ", b"])


@BIASES
def test_conv_cuts_its_outputs_with_the_inputs_of_the_next(bias: str) -> None:
    graph = build(
        f"""m (float[N, 3, 6, 6] x) => (float[N, 4, 4, 4] y) {{
            c = Conv <pads = [1, 1, 1, 1]> (x, W{bias})
            r = Relu(c)
            y = Conv(r, V, d)
        }}""",
        W=(8, 3, 3, 3),
        V=(4, 8, 3, 3),
        d=(4,),
        **({"b": (8,)} if bias else {}),
    )
    index = check(graph)
    assert widths(index) == {"Conv_0": 8}
    expected = [Member("Conv_0", "Conv", "W", 0, 8), Member("Conv_2", "Conv", "V", 1, 8)]
    if bias:
        expected.insert(1, Member("Conv_0", "Conv", "b", 0, 8))
    assert index.groups[0].members == tuple(expected)
    assert reasons(index) == {"Conv_2": "they are the model's output 'y'"}


def test_conv_in_one_and_three_dimensions() -> None:
    for dims, kernel in (("9", (3,)), ("4, 5, 6", (3, 3, 3))):
        graph = build(
            f"m (float[N, 2, {dims}] x) => (y) {{ c = Conv(x, W) r = Tanh(c) y = Conv(r, V) }}".replace(
                "(y)", f"(float[{', '.join('N2abc'[: len(kernel) + 2])}] y)"
            ).replace("float[N, 2, a", "float[N, K, a"),
            W=(6, 2, *kernel),
            V=(2, 6, *[1] * len(kernel)),
        )
        assert widths(check(graph)) == {"Conv_0": 6}


@pytest.mark.parametrize("multiplier", [1, 2])
@BIASES
def test_depthwise_passes_the_channels_and_counts_its_groups(multiplier: int, bias: str) -> None:
    wide = 6 * multiplier
    graph = build(
        f"""m (float[N, 3, 5, 5] x) => (float[N, 4, 5, 5] y) {{
            c = Conv(x, W)
            r = Relu(c)
            d = Conv <group = 6, pads = [1, 1, 1, 1]> (r, D{bias})
            s = Relu(d)
            y = Conv(s, V)
        }}""",
        W=(6, 3, 1, 1),
        D=(wide, 1, 3, 3),
        V=(4, wide, 1, 1),
        **({"b": (wide,)} if bias else {}),
    )
    index = check(graph)
    assert widths(index) == {"Conv_0": 6}
    mask = random_mask(index, 0)
    depthwise = cut(index, mask).graph.node[2]
    assert [a.i for a in depthwise.attribute if a.name == "group"] == [mask.sum()]


def test_depthwise_on_the_input_keeps_its_channels() -> None:
    graph = build(
        """m (float[N, 4, 5, 5] x) => (float[N, 3, 5, 5] y) {
            d = Conv <group = 4> (x, D)
            c = Conv(d, W)
            r = Relu(c)
            y = Conv(r, V)
        }""",
        D=(4, 1, 1, 1),
        W=(6, 4, 1, 1),
        V=(3, 6, 1, 1),
    )
    assert widths(check(graph)) == {"Conv_1": 6}


def test_grouped_conv_keeps_its_blocks_equal() -> None:
    graph = build(
        """m (float[N, 3, 5, 5] x) => (float[N, 4, 5, 5] y) {
            c = Conv(x, W, b)
            r = Relu(c)
            g = Conv <group = 2, pads = [1, 1, 1, 1]> (r, G, d)
            s = Relu(g)
            y = Conv(s, V)
        }""",
        W=(8, 3, 1, 1),
        b=(8,),
        G=(12, 4, 3, 3),
        d=(12,),
        V=(4, 12, 1, 1),
    )
    index = check(graph, seeds=range(5))
    assert widths(index) == {"Conv_0": 4, "Conv_2": 6}
    slim = cut(index, random_mask(index, 0))
    assert [a.i for a in slim.graph.node[2].attribute if a.name == "group"] == [2]


def test_grouped_conv_on_the_input_is_cut_along_its_outputs() -> None:
    graph = build(
        """m (float[N, 4, 5, 5] x) => (float[N, 3, 5, 5] y) {
            g = Conv <group = 2> (x, G)
            r = Relu(g)
            y = Conv(r, V)
        }""",
        G=(8, 2, 1, 1),
        V=(3, 8, 1, 1),
    )
    assert widths(check(graph)) == {"Conv_0": 4}


@BIASES
def test_transposed_conv(bias: str) -> None:
    graph = build(
        f"""m (float[N, 3, 4, 4] x) => (float[N, 2, 9, 9] y) {{
            c = Conv(x, W)
            r = Relu(c)
            t = ConvTranspose <strides = [2, 2], kernel_shape = [3, 3]> (r, T{bias})
            s = Relu(t)
            y = Conv(s, V)
        }}""",
        W=(6, 3, 1, 1),
        T=(6, 8, 3, 3),
        V=(2, 8, 1, 1),
        **({"b": (8,)} if bias else {}),
    )
    assert widths(check(graph)) == {"Conv_0": 6, "ConvTranspose_2": 8}


def test_grouped_transposed_conv_keeps_its_blocks_equal() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            c = Conv(x, W)
            t = ConvTranspose <group = 2> (c, T, b)
            s = Sigmoid(t)
            d = Conv(s, U)
            y = Conv(d, V)
        }""",
        W=(6, 3, 1, 1),
        T=(6, 4, 1, 1),
        b=(8,),
        U=(5, 8, 1, 1),
        V=(2, 5, 1, 1),
    )
    index = check(graph)
    assert widths(index) == {"Conv_0": 3, "ConvTranspose_1": 4, "Conv_3": 5}
    slim = cut(index, random_mask(index, 0))
    assert [a.i for a in slim.graph.node[1].attribute if a.name == "group"] == [2]


def test_a_computed_weight_freezes_what_it_reads() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x, float[4, 6, 1, 1] V) => (float[N, 4, 4, 4] y) {
            c = Conv(x, W)
            y = Conv(c, V)
        }""",
        W=(6, 3, 1, 1),
    )
    index = build_index(graph)
    assert index.groups == ()
    assert reasons(index) == {"Conv_1": "the weight or bias is computed, not constant"}
    assert index.refusals[0].n_channels == 6
    assert index.refusals[0].nodes == (0, 1)


def test_channels_on_a_spatial_axis_are_frozen() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 6, 4] y) {
            c = Conv(x, W)
            t = Transpose <perm = [0, 2, 1, 3]> (c)
            d = Conv(t, U)
            y = Conv(d, V)
        }""",
        W=(6, 3, 1, 1),
        U=(5, 4, 1, 1),
        V=(2, 5, 1, 1),
    )
    index = check(graph)
    assert widths(index) == {"Conv_2": 5}
    assert reasons(index)["Conv_2"] == "the channels lie on an axis that the convolution slides over"


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_transposed_conv_counts_its_groups(multiplier: int) -> None:
    wide = 6 * multiplier
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 8, 8] y) {
            c = Conv(x, W)
            t = ConvTranspose <group = 6, strides = [2, 2], kernel_shape = [2, 2]> (c, T, b)
            r = Relu(t)
            y = Conv(r, V)
        }""",
        W=(6, 3, 1, 1),
        T=(6, multiplier, 2, 2),
        b=(wide,),
        V=(2, wide, 1, 1),
    )
    index = check(graph)
    assert widths(index) == {"Conv_0": 6}
    mask = random_mask(index, 0)
    transposed = cut(index, mask).graph.node[1]
    assert [a.i for a in transposed.attribute if a.name == "group"] == [mask.sum()]


def test_grouped_transposed_conv_on_the_input_is_cut_along_its_outputs() -> None:
    graph = build(
        """m (float[N, 4, 5, 5] x) => (float[N, 3, 5, 5] y) {
            g = ConvTranspose <group = 2> (x, G)
            r = Relu(g)
            y = Conv(r, V)
        }""",
        G=(4, 3, 1, 1),
        V=(3, 6, 1, 1),
    )
    assert widths(check(graph)) == {"ConvTranspose_0": 3}


def test_transposed_conv_and_instance_normalization() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 8, 8] y) {
            t = ConvTranspose <strides = [2, 2], kernel_shape = [2, 2]> (x, T, b)
            n = InstanceNormalization(t, s, sb)
            r = LeakyRelu(n)
            y = Conv(r, V)
        }""",
        T=(3, 6, 2, 2),
        b=(6,),
        s=(6,),
        sb=(6,),
        V=(2, 6, 1, 1),
    )
    index = check(graph)
    assert widths(index) == {"ConvTranspose_0": 6}
    assert [(m.tensor, m.axis) for m in index.groups[0].members] == [("T", 1), ("b", 0), ("s", 0), ("sb", 0), ("V", 1)]


@pytest.mark.parametrize("rank", [1, 3])
def test_depthwise_grouped_and_transposed_conv_in_one_and_three_dimensions(rank: int) -> None:
    ones, dims, names = [1] * rank, ", ".join(["4"] * rank), ", ".join("ABC"[:rank])
    graph = build(
        f"""m (float[N, 3, {dims}] x) => (float[N, 2, {names}] y) {{
            c = Conv(x, W)
            d = Conv <group = 6> (c, D)
            g = Conv <group = 2> (d, G)
            t = ConvTranspose(g, T)
            p = AveragePool <kernel_shape = {[2] * rank}> (t)
            y = Conv(p, V)
        }}""",
        W=(6, 3, *ones),
        D=(6, 1, *[2] * rank),
        G=(8, 3, *ones),
        T=(8, 5, *[2] * rank),
        V=(2, 5, *ones),
    )
    assert widths(check(graph)) == {"Conv_0": 3, "Conv_2": 4, "ConvTranspose_3": 5}


def test_a_grouped_conv_after_a_concat_ties_what_lies_at_the_same_place_of_its_blocks() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            a = Conv(x, A)
            b = Conv(x, B)
            c = Concat <axis = 1> (a, b)
            g = Conv <group = 2> (c, G)
            y = Conv(g, V)
        }""",
        A=(4, 3, 1, 1),
        B=(4, 3, 1, 1),
        G=(6, 4, 1, 1),
        V=(2, 6, 1, 1),
    )
    assert widths(check(graph)) == {"Conv_0": 4, "Conv_3": 3}


def test_a_map_of_one_channel_weighs_positions_and_ties_nothing() -> None:
    """Spatial attention."""
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            c = Conv(x, W)
            a = Conv <pads = [1, 1, 1, 1]> (c, A, b)
            s = Sigmoid(a)
            m = Mul(c, s)
            y = Conv(m, V)
        }""",
        W=(6, 3, 1, 1),
        A=(1, 6, 3, 3),
        b=(1,),
        V=(2, 6, 1, 1),
    )
    index = check(graph)
    assert widths(index) == {"Conv_0": 6}
    assert [(m.tensor, m.axis) for m in index.groups[0].members] == [("W", 0), ("A", 1), ("V", 1)]
