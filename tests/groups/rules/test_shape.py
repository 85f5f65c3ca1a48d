from __future__ import annotations

import numpy as np
import pytest

from bocr_onnx.graph import ModelGraph
from bocr_onnx.groups import build_index
from bocr_onnx.slimming import cut
from tests.oracle import build, check, random_mask, reasons, widths

CONV = {"W": (6, 3, 1, 1), "V": (2, 6, 1, 1)}
ARITHMETIC = "the number of channels is used in arithmetic"
OPEN = {"c0": np.array(0, np.int64), "c1": np.array(1, np.int64)}
COUNTED = [(1, True), (-3, True), (0, False), (2, False), (-1, False)]


def scaled(*nodes: str, opset: int = 17, **constants: object) -> ModelGraph:
    """Returns a model that multiplies its stream by a number `n` read off the shape of `c`."""
    return build(
        f"""m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {{
            c = Conv(x, W)
            {" ".join(nodes)}
            f = Cast <to = 1> (n)
            e = Mul(c, f)
            y = Conv(e, V)
        }}""",
        opset=opset,
        **CONV,
        **constants,
    )


@pytest.mark.parametrize("times", ["n = Identity(w)", "b = Shape <end = 1> (c) n = Mul(w, b)"], ids=["", "open batch"])
@pytest.mark.parametrize("picked", [1, -3, 0, 2, -1])
def test_a_gathered_width_in_arithmetic_stays_the_number_it_was(picked: int, times: str) -> None:
    """The slim model no longer computes it: the arithmetic reads a constant."""
    index = check(scaled(f"s = Shape(c) w = Gather(s, i) {times}", i=np.array(picked, np.int64)))
    assert widths(index) == {"Conv_0": 6}
    assert bool(index.pins) is (picked in (1, -3))


@pytest.mark.parametrize(("picked", "counts"), [(1, True), (-3, True), (0, False), (2, False), (-1, False)])
def test_a_width_beside_the_open_batch_in_arithmetic_freezes_its_channels_only(picked: int, counts: bool) -> None:
    graph = scaled("s = Shape(c) p = Gather(s, i) n = ReduceProd <keepdims = 0> (p)", i=[0, picked])
    index = build_index(graph) if counts else check(graph)
    assert widths(index) == ({} if counts else {"Conv_0": 6})
    assert (reasons(index).get("ReduceProd_3") == ARITHMETIC) is counts


@pytest.mark.parametrize(
    ("window", "frozen"),
    [
        ("start = 1", False),
        ("start = -3, end = -2", False),
        ("start = 2", False),
        ("end = 1", False),
        ("end = 2", True),
    ],
)
def test_a_shape_of_a_window_of_axes(window: str, frozen: bool) -> None:
    """A product of sizes is known as long as the open batch is not among them."""
    graph = scaled(f"s = Shape <{window}> (c) n = ReduceProd <keepdims = 0> (s)")
    index = build_index(graph) if frozen else check(graph)
    assert widths(index) == ({} if frozen else {"Conv_0": 6})


@pytest.mark.parametrize(
    ("start", "end", "frozen"), [(1, 2, False), (-3, -2, False), (0, 2, True), (2, 4, False), (-2, 99, False)]
)
def test_a_slice_of_a_shape(start: int, end: int, frozen: bool) -> None:
    graph = scaled(
        "s = Shape(c) p = Slice(s, from, to) n = ReduceProd <keepdims = 0> (p)", **{"from": [start], "to": [end]}
    )
    index = build_index(graph) if frozen else check(graph)
    assert widths(index) == ({} if frozen else {"Conv_0": 6})


@pytest.mark.parametrize(("picked", "counts"), [([0, 1], True), ([0, 2], False)])
def test_the_entry_of_a_slice_counts_from_its_start(picked: list[int], counts: bool) -> None:
    """Transposed to (H, N, C, W), the shape from axis 1 on is (N, C, W)."""
    graph = scaled(
        """t = Transpose <perm = [2, 0, 1, 3]> (c) s = Shape <start = 1> (t) p = Gather(s, i)
        n = ReduceProd <keepdims = 0> (p)""",
        i=picked,
    )
    index = build_index(graph) if counts else check(graph)
    assert widths(index) == ({} if counts else {"Conv_0": 6})


def test_the_whole_shape_in_arithmetic_freezes() -> None:
    graph = scaled("s = Shape(c) n = ReduceProd <keepdims = 0> (s)")
    assert reasons(build_index(graph))["ReduceProd_2"] == ARITHMETIC


def test_the_number_of_elements_freezes() -> None:
    assert reasons(build_index(scaled("n = Size(c)")))["Size_1"] == ARITHMETIC


@pytest.mark.parametrize("read", ["s = Shape(c)", "s = Shape <start = 1, end = 2> (c)"])
def test_a_shape_that_is_an_output_freezes(read: str) -> None:
    graph = build(
        f"m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y, int64[K] s) {{ c = Conv(x, W) {read} y = Conv(c, V) }}",
        **CONV,
    )
    index = build_index(graph)
    assert widths(index) == {}
    assert reasons(index)["Shape_1"] == ARITHMETIC


def test_a_shape_that_a_subgraph_reads_freezes() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x, bool b) => (float[N, 2, 4, 4] y) {
            c = Conv(x, W)
            s = Shape <start = 1, end = 2> (c)
            f = If (b) <
                then_branch = t () => (float[1] a) { a = Cast <to = 1> (s) },
                else_branch = e () => (float[1] a) { a = Cast <to = 1> (s) }
            >
            p = Conv(c, V)
            y = Mul(p, f)
        }""",
        **CONV,
    )
    index = build_index(graph)
    assert widths(index) == {}
    assert reasons(index)["If_2"] == ARITHMETIC


def test_a_width_that_only_a_target_shape_reads_follows() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 16] y) {
            c = Conv(x, W)
            n = Shape <end = 1> (c)
            w = Shape <start = 1, end = 2> (c)
            t = Concat <axis = 0> (n, w, k)
            f = Reshape(c, t)
            y = Conv(f, V)
        }""",
        k=[-1],
        W=(6, 3, 1, 1),
        V=(2, 6, 1),
    )
    assert widths(check(graph)) == {"Conv_0": 6}


TARGET = """m (float[N, 3, 4, 4] x) => (float[N, 2, 16] y) {{
    c = Conv(x, W)
    s = Shape(c)
    v = Slice(s, zero, two)
    {made}
    t = Concat <axis = 0> (p, k16)
    f = Reshape(c, t)
    y = Conv(f, V)
}}"""
"""`v` is the open batch and the width, `p` what becomes of them."""
TARGETS = {"zero": [0], "two": [2], "k16": [16], "W": (6, 3, 1, 1), "V": (2, 6, 1)}
LISTS = {"ones": [1, 1], "by": [1, 16], "minus": [-1], "order": [0, 1], "most": [3], "nought": [0, 0]}


def targeted(made: str) -> ModelGraph:
    used = {name: value for name, value in LISTS.items() if f"{name}" in made}
    return build(TARGET.format(made=made), **TARGETS, **used)


@pytest.mark.parametrize(
    "made",
    [
        "p = Identity(v)",
        "p = Mul(v, ones)",
        "q = Mul(by, v) p = Div(q, by)",
        "q = Equal(v, minus) p = Where(q, ones, v)",
        "q = Cast <to = 6> (v) r = Unsqueeze(q, zero) u = Squeeze(r, zero) p = Cast <to = 7> (u)",
        "p = Gather(v, order)",
    ],
)
def test_a_width_that_goes_through_exact_arithmetic_into_a_target_follows(made: str) -> None:
    assert widths(check(targeted(made))) == {"Conv_0": 6}


@pytest.mark.parametrize(
    "made",
    [
        "p = Add(v, nought)",
        "p = Mod(v, most)",
        "q = Mul(v, v) p = Div(q, v)",
        "q = Greater(v, most) p = Where(q, v, v)",
    ],
)
def test_a_width_in_other_arithmetic_freezes(made: str) -> None:
    index = build_index(targeted(made))
    assert widths(index) == {}
    assert reasons(index)


def test_a_number_of_heads_beside_a_width_is_rewritten() -> None:
    """`(N, L, H * D)` to `(N, L, H, D)` with H from a constant, N and L from the shape."""
    graph = build(
        """m (float[N, 5, 3] x) => (float[N, 5, 2] y) {
            c = MatMul(x, A)
            s = Shape(c)
            n = Slice(s, k0, k2)
            t = Concat <axis = 0> (n, heads)
            q = Reshape(c, t)
            p = Softmax(q)
            u = Concat <axis = 0> (n, minus)
            m = Reshape(p, u)
            y = MatMul(m, B)
        }""",
        k0=[0],
        k2=[2],
        heads=[4, 3],
        minus=[-1],
        A=(3, 12),
        B=(12, 2),
    )
    index = check(graph)
    assert widths(index) == {"MatMul_0": 4}
    mask = random_mask(index, 0)
    stored = {t.name: t for t in cut(index, mask).graph.initializer}
    assert np.frombuffer(stored["heads"].raw_data, np.int64).tolist() == [mask.sum(), 3]
