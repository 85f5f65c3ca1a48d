from __future__ import annotations

import numpy as np
import pytest

from bocr_onnx.graph import ModelGraph
from bocr_onnx.groups import build_index
from bocr_onnx.slimming import cut
from tests.oracle import Constant, build, check, reasons, widths

CONV = {"W": (6, 3, 1, 1), "V": (2, 6, 1, 1)}
DENSE = {
    "W": (6, 3, 1, 1),
    "A": (4, 6, 3, 3),
    "B": (5, 10, 3, 3),
    "V": (2, 15, 1, 1),
}


def test_concat_of_a_dense_block_keeps_every_layer_a_group() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            c = Conv(x, W)
            a = Conv <pads = [1, 1, 1, 1]> (c, A)
            ca = Concat <axis = 1> (c, a)
            b = Conv <pads = [1, 1, 1, 1]> (ca, B)
            cab = Concat <axis = -3> (c, a, b)
            y = Conv(cab, V)
        }""",
        **DENSE,
    )
    index = check(graph, seeds=range(4))
    assert widths(index) == {"Conv_0": 6, "Conv_1": 4, "Conv_3": 5}
    members = [[(m.tensor, m.axis, m.width) for m in g.members] for g in index.groups]
    assert members == [
        [("W", 0, 6), ("A", 1, 6), ("B", 1, 6), ("V", 1, 6)],
        [("A", 0, 4), ("B", 1, 4), ("V", 1, 4)],
        [("B", 0, 5), ("V", 1, 5)],
    ]


def test_concat_of_concats() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            c = Conv(x, W)
            a = Conv <pads = [1, 1, 1, 1]> (c, A)
            ca = Concat <axis = 1> (c, a)
            b = Conv <pads = [1, 1, 1, 1]> (ca, B)
            r = Relu(ca)
            cab = Concat <axis = 1> (b, r)
            y = Conv(cab, V)
        }""",
        **DENSE,
    )
    assert widths(check(graph)) == {"Conv_0": 6, "Conv_1": 4, "Conv_3": 5}


def test_concat_of_a_tensor_with_itself_cuts_both_copies() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            c = Conv(x, W)
            d = Concat <axis = 1> (c, c)
            y = Conv(d, V)
        }""",
        W=(6, 3, 1, 1),
        V=(2, 12, 1, 1),
    )
    index = check(graph)
    assert [(m.tensor, m.width) for m in index.groups[0].members] == [("W", 6), ("V", 12)]


def test_concat_with_the_input_keeps_the_inputs_channels() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            c = Conv(x, W)
            d = Concat <axis = 1> (x, c)
            y = Conv(d, V)
        }""",
        W=(6, 3, 1, 1),
        V=(2, 9, 1, 1),
    )
    index = check(graph)
    assert widths(index) == {"Conv_0": 6}
    assert [(m.tensor, m.width) for m in index.groups[0].members] == [("W", 6), ("V", 6)]


def test_concat_with_a_constant_cuts_the_constant() -> None:
    graph = build(
        """m (float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y) {
            c = Conv(x, W)
            d = Concat <axis = 1> (c, k)
            y = Conv(d, V)
        }""",
        W=(6, 3, 1, 1),
        k=(1, 4, 4, 4),
        V=(2, 10, 1, 1),
    )
    index = check(graph)
    assert widths(index) == {"Conv_0": 6, "Concat_1": 4}


def test_concat_over_space_joins_the_channels() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 8, 4] y) {
            c = Conv(x, W)
            d = Conv(x, U)
            e = Concat <axis = 2> (c, d)
            y = Conv(e, V)
        }""",
        U=(6, 3, 1, 1),
        **CONV,
    )
    assert widths(check(graph)) == {"Conv_0": 6}


def test_concat_over_space_with_the_input_is_refused() -> None:
    graph = build(
        """m (float[N, 6, 4, 4] x) => (float[N, 2, 8, 4] y) {
            c = Conv(x, W)
            e = Concat <axis = 2> (c, x)
            y = Conv(e, V)
        }""",
        W=(6, 6, 1, 1),
        V=(2, 6, 1, 1),
    )
    index = build_index(graph)
    assert index.groups == ()
    assert reasons(index)["Concat_1"] == "it meets 'x', whose channels cannot be cut"


def test_a_residual_through_a_concat() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            a = Conv(x, A)
            b = Conv(x, B)
            c = Concat <axis = 1> (a, b)
            d = Conv(c, D)
            e = Add(c, d)
            y = Conv(e, V)
        }""",
        A=(4, 3, 1, 1),
        B=(5, 3, 1, 1),
        D=(9, 9, 1, 1),
        V=(2, 9, 1, 1),
    )
    index = check(graph)
    assert widths(index) == {"Conv_0": 4, "Conv_1": 5}
    assert [(m.tensor, m.axis, m.width) for m in index.groups[0].members] == [
        ("A", 0, 4), ("D", 1, 4), ("D", 0, 4), ("V", 1, 4)
    ]  # fmt: skip


SPLITS = {
    "opset 11, by attribute": (11, "a, b = Split <axis = 1, split = {sizes}> (c)"),
    "opset 13, by input": (13, "a, b = Split <axis = 1> (c, sizes)"),
    "opset 18, by input": (18, "a, b = Split <axis = -3> (c, sizes)"),
}
EQUAL_SPLITS = {
    **SPLITS,
    "opset 11, equal": (11, "a, b = Split <axis = 1> (c)"),
    "opset 13, equal": (13, "a, b = Split <axis = 1> (c)"),
    "opset 18, number": (18, "a, b = Split <axis = 1, num_outputs = 2> (c)"),
}


def parted(case: str, sizes: list[int], rest: str, **constants: Constant) -> ModelGraph:
    opset, split = EQUAL_SPLITS[case]
    return build(
        f"m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {{ c = Conv(x, W) {split.format(sizes=sizes)} {rest} }}",
        opset=opset,
        W=(8, 3, 1, 1),
        **({"sizes": sizes} if "(c, sizes)" in split else {}),
        **constants,
    )


@pytest.mark.parametrize("case", EQUAL_SPLITS)
def test_the_halves_of_a_gated_unit_go_together(case: str) -> None:
    graph = parted(case, [4, 4], "s = Sigmoid(b) g = Mul(a, s) y = Conv(g, V)", V=(2, 4, 1, 1))
    index = check(graph)
    assert widths(index) == {"Conv_0": 4}
    assert [(m.tensor, m.width) for m in index.groups[0].members] == [("W", 8), ("V", 4)]


@pytest.mark.parametrize("case", EQUAL_SPLITS)
def test_the_halves_of_a_split_are_groups_of_their_own(case: str) -> None:
    graph = parted(case, [4, 4], "p = Conv(a, V) q = Conv(b, U) y = Add(p, q)", V=(2, 4, 1, 1), U=(2, 4, 1, 1))
    assert widths(check(graph, seeds=range(5))) == {"Conv_0": 4, "Conv_0:2": 4}


@pytest.mark.parametrize("case", SPLITS)
def test_the_parts_of_an_uneven_split(case: str) -> None:
    graph = parted(case, [2, 6], "p = Conv(a, V) q = Conv(b, U) y = Add(p, q)", V=(2, 2, 1, 1), U=(2, 6, 1, 1))
    assert widths(check(graph, seeds=range(5))) == {"Conv_0": 2, "Conv_0:2": 6}


def test_a_number_of_parts_becomes_their_sizes() -> None:
    rest = "p = Conv(a, V) q = Conv(b, U) y = Add(p, q)"
    graph = parted("opset 18, number", [4, 4], rest, V=(2, 4, 1, 1), U=(2, 4, 1, 1))
    index = build_index(graph)
    mask = np.ones(8, dtype=bool)
    mask[[0, 1, 7]] = False
    slim = cut(index, mask)
    node = slim.graph.node[1]
    assert [a.name for a in node.attribute] == ["axis"]
    stored = {t.name: t for t in slim.graph.initializer}
    assert np.frombuffer(stored[node.input[1]].raw_data, np.int64).tolist() == [2, 3]


def test_a_split_over_space_passes_the_channels() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 2, 4] y) {
            c = Conv(x, W)
            a, b = Split <axis = 2> (c)
            d = Sub(a, b)
            y = Conv(d, V)
        }""",
        **CONV,
    )
    assert widths(check(graph)) == {"Conv_0": 6}


def test_the_split_of_a_cross_stage_unit_joins_again() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            c = Conv(x, W)
            a, b = Split <axis = 1> (c, sizes)
            d = Conv(b, U)
            e = Add(b, d)
            f = Concat <axis = 1> (a, b, e)
            y = Conv(f, V)
        }""",
        sizes=[4, 4],
        W=(8, 3, 1, 1),
        U=(4, 4, 1, 1),
        V=(2, 12, 1, 1),
    )
    assert widths(check(graph)) == {"Conv_0": 4, "Conv_2": 4}
