from __future__ import annotations

import pytest

from bocr_onnx.groups import build_index
from tests.oracle import build, check, reasons, widths


@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("bias", [None, (8,), (1, 8), (1,), ()])
def test_gemm_cuts_both_axes_and_its_bias(trans_b: int, bias: tuple[int, ...] | None) -> None:
    graph = build(
        f"""m (float[N, 5] x) => (float[N, 3] y) {{
            g = Gemm <transB = {trans_b}, alpha = 0.5, beta = 2.0> (x, W{"" if bias is None else ", b"})
            r = Relu(g)
            y = Gemm <transB = {trans_b}> (r, V, d)
        }}""",
        W=(8, 5) if trans_b else (5, 8),
        V=(3, 8) if trans_b else (8, 3),
        d=(3,),
        **({} if bias is None else {"b": bias}),
    )
    index = check(graph)
    assert widths(index) == {"Gemm_0": 8}
    cut_bias = bias is not None and 8 in bias
    assert len(index.groups[0].members) == 2 + cut_bias


def test_gemm_freezes_channels_on_its_rows() -> None:
    graph = build(
        """m (float[4, 5] x) => (float[6, 3] y) {
            g = Gemm(x, W)
            h = Gemm <transA = 1> (g, U)
            y = MatMul(h, V)
        }""",
        W=(5, 6),
        U=(4, 8),
        V=(8, 3),
    )
    index = check(graph)
    assert widths(index) == {"Gemm_1": 8}
    assert reasons(index)["Gemm_1"] == "the channels lie on the rows of a matrix product"


def test_gemm_of_two_computed_factors_is_refused() -> None:
    graph = build(
        """m (float[4, 5] x, float[6, 4] z) => (float[4, 4] y) { g = Gemm(x, W) y = Gemm(g, z) }""",
        W=(5, 6),
    )
    index = build_index(graph)
    assert index.groups == ()
    assert reasons(index) == {"Gemm_1": "both factors are computed"}


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("left", [False, True], ids=["bias right", "bias left"])
def test_matmul_and_its_bias(rank: int, left: bool) -> None:
    rows = "N, 4, " if rank == 3 else "N, "
    graph = build(
        f"""m (float[{rows}5] x) => (float[{rows}3] y) {{
            g = MatMul(x, W)
            a = Add({"b, g" if left else "g, b"})
            r = Relu(a)
            y = MatMul(r, V)
        }}""",
        W=(5, 8),
        b=(8,),
        V=(8, 3),
    )
    index = check(graph)
    assert widths(index) == {"MatMul_0": 8}
    assert [m.tensor for m in index.groups[0].members] == ["W", "b", "V"]


def test_matmul_with_a_computed_right_factor_freezes_both() -> None:
    graph = build(
        """m (float[4, 5] x) => (float[4, 4] y) {
            q = MatMul(x, Q)
            k = MatMul(x, K)
            t = Transpose(k)
            y = MatMul(q, t)
        }""",
        Q=(5, 6),
        K=(5, 6),
    )
    index = build_index(graph)
    assert index.groups == ()
    assert reasons(index)["MatMul_3"] == "the right factor is not a constant matrix"
    assert index.refusals[0].n_channels == 12
