from __future__ import annotations

import numpy as np
import pytest

from bocr_onnx.groups import build_index
from bocr_onnx.groups.rules.reduction import REDUCTIONS
from tests.oracle import build, check, reasons, widths


def reduced(node: str, keep: bool, opset: int, axes: list[int] | None = None) -> object:
    weight = {"V": (2, 6, 1, 1)} if keep else {"V": (6, 2)}
    out, last = ("float[N, 2, A, B] y", "Conv(p, V)") if keep else ("float[N, 2] y", "MatMul(p, V)")
    text = f"m (float[N, 3, 4, 4] x) => ({out}) {{ c = Conv(x, W) s = Sigmoid(c) p = {node} y = {last} }}"
    return build(text, opset=opset, W=(6, 3, 1, 1), **weight, **({} if axes is None else {"axes": axes}))


@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize("keep", [0, 1])
def test_a_reduction_over_space_by_attribute(op: str, keep: int) -> None:
    graph = reduced(f"{op} <axes = [2, -1], keepdims = {keep}> (s)", bool(keep), 12)
    assert widths(check(graph, seeds=(0,))) == {"Conv_0": 6}


@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize("keep", [0, 1])
def test_a_reduction_over_space_by_input(op: str, keep: int) -> None:
    graph = reduced(f"{op} <keepdims = {keep}> (s, axes)", bool(keep), 18, [-2, 3])
    assert widths(check(graph, seeds=(0,))) == {"Conv_0": 6}


@pytest.mark.parametrize("op", ["ReduceMean <axes = [1, 2], keepdims = 0>", "ArgMax <axis = 1, keepdims = 0>"])
def test_axes_that_go_before_the_channels_move_them_forward(op: str) -> None:
    graph = build(
        f"""m (float[N, 3, 4, 4] x) => (float[N, {"" if "Mean" in op else "4, "}2] y) {{
            c = Conv(x, W)
            t = Transpose <perm = [0, 2, 3, 1]> (c)
            p = {op} (t)
            f = Cast <to = 1> (p)
            y = MatMul(f, V)
        }}""",
        opset=13,
        W=(6, 3, 1, 1),
        V=(6, 2),
    )
    assert widths(check(graph)) == {"Conv_0": 6}


def test_a_reduction_of_no_axes_as_identity() -> None:
    graph = reduced("ReduceMean <noop_with_empty_axes = 1> (s)", True, 18)
    assert widths(check(graph)) == {"Conv_0": 6}


@pytest.mark.parametrize("axes", ["axes = [1]", "axes = [-3]", "axes = [1, 2]", "keepdims = 1"])
def test_a_reduction_over_the_channels_is_refused(axes: str) -> None:
    graph = build(
        f"""m (float[N, 3, 4, 4] x) => (float[N, 2, A, B] y) {{
            c = Conv(x, W)
            p = ReduceMean <{axes}> (c)
            d = Conv(p, U)
            y = Conv(d, V)
        }}""",
        W=(6, 3, 1, 1),
        U=(5, 1, 1, 1),
        V=(2, 5, 1, 1),
    )
    index = check(graph)
    assert widths(index) == {"Conv_2": 5}
    assert reasons(index)["ReduceMean_1"] == "ReduceMean mixes the channels"


def test_computed_axes_are_refused() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x, int64[1] axes) => (float[N, 2, A, B] y) {
            c = Conv(x, W) p = ReduceMean(c, axes) y = Conv(p, V) }""",
        opset=18,
        W=(6, 3, 1, 1),
        V=(2, 6, 1, 1),
    )
    index = build_index(graph)
    assert index.groups == ()
    assert reasons(index)["ReduceMean_1"] == "the reduced axes are computed"


@pytest.mark.parametrize(("axis", "refused"), [(1, True), (-3, True), (2, False), (3, False)])
@pytest.mark.parametrize("keep", [0, 1])
def test_argmax_compares_along_one_axis(axis: int, keep: int, refused: bool) -> None:
    graph = build(
        f"""m (float[N, 3, 4, 4] x) => (float[N, 6, 4, 4] y) {{
            c = Conv(x, W)
            a = ArgMax <axis = {axis}, keepdims = {keep}> (c)
            f = Cast <to = 1> (a)
            b = Conv(x, U)
            m = ReduceSum <keepdims = 0> (f, every)
            y = Add(b, m)
        }}""",
        W=(6, 3, 1, 1),
        U=(6, 3, 1, 1),
        every=[1, 2, 3] if keep else [1, 2],
    )
    index = build_index(graph)
    assert (reasons(index).get("ArgMax_1") == "ArgMax compares the channels") is refused
    where = next((axes for name, axes in index.axes.items() if name == "f"), {})
    assert sorted(where) == ([] if refused else [1])


@pytest.mark.parametrize(("axis", "refused"), [(1, True), (-3, True), (2, False), (-1, False)])
def test_a_running_sum_passes_the_other_axes(axis: int, refused: bool) -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            c = Conv(x, W)
            s = CumSum(c, axis)
            d = Conv(s, U)
            y = Conv(d, V)
        }""",
        axis=np.array(axis, np.int64),
        W=(6, 3, 1, 1),
        U=(5, 6, 1, 1),
        V=(2, 5, 1, 1),
    )
    index = check(graph)
    assert widths(index) == ({"Conv_2": 5} if refused else {"Conv_0": 6, "Conv_2": 5})
    assert (reasons(index).get("CumSum_1") == "CumSum mixes the channels") is refused


@pytest.mark.parametrize(("axis", "refused"), [(1, True), (2, False), (-1, False)])
def test_the_largest_entries_along_an_axis(axis: int, refused: bool) -> None:
    width = 3 if refused else 6
    graph = build(
        f"""m (float[N, 3, 4, 4] x) => (float[N, 2, A, B] y) {{
            c = Conv(x, W)
            s, i = TopK <axis = {axis}> (c, three)
            f = Cast <to = 1> (i)
            a = Add(s, f)
            d = Conv(a, U)
            y = Conv(d, V)
        }}""",
        three=[3],
        W=(6, 3, 1, 1),
        U=(5, width, 1, 1),
        V=(2, 5, 1, 1),
    )
    index = check(graph)
    assert widths(index) == ({"Conv_4": 5} if refused else {"Conv_0": 6, "Conv_4": 5})
    assert (reasons(index).get("TopK_1") == "TopK compares the channels") is refused
