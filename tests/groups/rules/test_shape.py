from __future__ import annotations

import numpy as np
import pytest

from bocr_onnx.groups import build_index
from tests.oracle import build, check, reasons, widths

CONV = {"W": (6, 3, 1, 1), "V": (2, 6, 1, 1)}
ARITHMETIC = "their number is used in arithmetic"


def scaled(*nodes: str, opset: int = 17, **constants: object) -> object:
    """Returns a model that multiplies its stream by a number `f` read off the shape of `c`."""
    return build(
        f"""m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {{
            c = Conv(x, W)
            {" ".join(nodes)}
            e = Mul(c, f)
            y = Conv(e, V)
        }}""",
        opset=opset,
        **CONV,
        **constants,
    )


@pytest.mark.parametrize(("picked", "counts"), [(1, True), (-3, True), (0, False), (2, False), (-1, False)])
def test_a_gathered_width_in_arithmetic_freezes_its_channels_only(picked: int, counts: bool) -> None:
    graph = scaled("s = Shape(c) n = Gather(s, i) f = Cast <to = 1> (n)", i=np.array(picked, np.int64))
    index = build_index(graph) if counts else check(graph)
    assert widths(index) == ({} if counts else {"Conv_0": 6})
    assert (reasons(index).get("Shape_1") == ARITHMETIC) is counts


@pytest.mark.parametrize(
    ("window", "counts"),
    [("start = 1, end = 2", True), ("start = -3, end = -2", True), ("start = 2, end = 3", False), ("end = 1", False)],
)
def test_a_shape_of_a_window_of_axes(window: str, counts: bool) -> None:
    graph = scaled(f"s = Shape <{window}> (c) f = Cast <to = 1> (s)")
    index = build_index(graph) if counts else check(graph)
    assert widths(index) == ({} if counts else {"Conv_0": 6})


@pytest.mark.parametrize(
    ("start", "end", "counts"), [(1, 2, True), (-3, -2, True), (0, 2, True), (2, 4, False), (-2, 99, False)]
)
def test_a_slice_of_a_shape(start: int, end: int, counts: bool) -> None:
    graph = scaled(
        "s = Shape(c) n = Slice(s, from, to) p = ReduceProd <keepdims = 0> (n) f = Cast <to = 1> (p)",
        **{"from": [start], "to": [end]},
    )
    index = build_index(graph) if counts else check(graph)
    assert widths(index) == ({} if counts else {"Conv_0": 6})


def test_a_width_at_an_entry_behind_the_start_is_found() -> None:
    """The entry of Gather counts from the start of the window, not from the first axis."""
    graph = scaled("s = Shape <start = 1> (c) n = Gather(s, i) f = Cast <to = 1> (n)", i=np.array(0, np.int64))
    assert widths(build_index(graph)) == {}
    graph = scaled("s = Shape <start = 1> (c) n = Gather(s, i) f = Cast <to = 1> (n)", i=np.array(1, np.int64))
    assert widths(check(graph)) == {"Conv_0": 6}


def test_the_whole_shape_in_arithmetic_freezes() -> None:
    graph = scaled("s = Shape(c) p = ReduceProd <keepdims = 0> (s) f = Cast <to = 1> (p)")
    assert reasons(build_index(graph))["Shape_1"] == ARITHMETIC


def test_the_number_of_elements_freezes() -> None:
    graph = scaled("s = Size(c) f = Cast <to = 1> (s)")
    assert reasons(build_index(graph))["Size_1"] == ARITHMETIC


@pytest.mark.parametrize("read", ["s = Shape(c)", "s = Shape <start = 1, end = 2> (c)"])
def test_a_shape_that_is_an_output_freezes(read: str) -> None:
    graph = build(
        f"m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y, int64[K] s) {{ c = Conv(x, W) {read} y = Conv(c, V) }}",
        **CONV,
    )
    assert reasons(build_index(graph))["Shape_1"] == ARITHMETIC


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
    assert reasons(index)["Shape_1"] == ARITHMETIC


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
