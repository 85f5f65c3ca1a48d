from __future__ import annotations

import re

import numpy as np
import pytest

from bocr_onnx.groups import build_index
from tests.oracle import Constant, build, check, reasons, widths


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


@pytest.mark.parametrize("back", [False, True])
def test_channels_on_the_rows_of_gemm_pass(back: bool) -> None:
    """They are frozen where they are rows of the output, and cut where something sums over them."""
    graph = build(
        f"""m (float[4, 5] x) => (float[6, 3] y) {{
            g = Gemm(x, W)
            h = Gemm <transA = 1> (g, U)
            k = MatMul(h, V)
            y = {"Gemm <transA = 1> (k, T)" if back else "Identity(k)"}
        }}""",
        W=(5, 6),
        U=(4, 8),
        V=(8, 6 if back else 3),
        **({"T": (6, 3)} if back else {}),
    )
    index = check(graph)
    assert widths(index) == ({"Gemm_0": 6, "Gemm_1": 8} if back else {"Gemm_1": 8})
    assert set(reasons(index).values()) == {"they are the model's output 'y'"}


def test_what_gemm_sums_over_with_the_input_is_frozen() -> None:
    graph = build(
        """m (float[4, 5] x, float[6, 4] z) => (float[4, 4] y) { g = Gemm(x, W) y = Gemm(g, z) }""",
        W=(5, 6),
    )
    index = build_index(graph)
    assert index.groups == ()
    assert reasons(index) == {"Gemm_1": "it meets 'z', whose channels cannot be cut"}


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


def test_matmul_of_two_computed_factors_joins_what_it_sums_over() -> None:
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
    index = check(graph)
    assert widths(index) == {"MatMul_0": 6}
    assert [(m.tensor, m.axis) for m in index.groups[0].members] == [("Q", 1), ("K", 1)]


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.5, 2.0)])
def test_gemm_in_every_orientation(trans_a: int, trans_b: int, alpha: float, beta: float) -> None:
    settings = f"transA = {trans_a}, transB = {trans_b}, alpha = {alpha}, beta = {beta}"
    graph = build(
        f"""m (float[{"5, 4" if trans_a else "4, 5"}] x) => (float[4, 3] y) {{
            g = Gemm <{settings}> (x, W, b)
            r = Relu(g)
            t = {"Transpose(r)" if trans_a else "Identity(r)"}
            y = Gemm <{settings}> (t, V, d)
        }}""",
        W=(8, 5) if trans_b else (5, 8),
        b=(8,),
        V=(3, 8) if trans_b else (8, 3),
        d=(4, 3),
    )
    index = check(graph)
    assert widths(index) == {"Gemm_0": 8}
    assert [(m.tensor, m.axis) for m in index.groups[0].members] == [
        ("W", 1 - trans_b), ("b", 0), ("V", trans_b)
    ]  # fmt: skip


def test_gemm_with_the_constant_on_the_left() -> None:
    graph = build(
        """m (float[5, 4] x) => (float[3, 4] y) { g = Gemm(W, x, b) r = Relu(g) y = Gemm <transA = 1> (V, r) }""",
        W=(8, 5),
        b=(8, 1),
        V=(8, 3),
    )
    index = check(graph)
    assert widths(index) == {"Gemm_0": 8}
    assert [(m.tensor, m.axis) for m in index.groups[0].members] == [("W", 0), ("b", 0), ("V", 0)]


def test_what_gemm_adds_may_be_computed_only_where_it_has_no_channels() -> None:
    text = "m (float[4, 5] x, float[4, {}] z) => (float[4, 3] y) {{ g = Gemm(x, W, z) r = Tanh(g) y = Gemm(r, V) }}"
    assert widths(check(build(text.format(1).replace("float[4, 1]", "float[1]"), W=(5, 8), V=(8, 3)))) == {"Gemm_0": 8}
    index = build_index(build(text.format(8), W=(5, 8), V=(8, 3)))
    assert widths(index) == {}
    assert reasons(index)["Gemm_0"] == "what is added to the product, or its scale, is computed"


@pytest.mark.parametrize("rank", [2, 3])
def test_matmul_with_the_constant_on_the_left_mixes_tokens(rank: int) -> None:
    batch = "N, " if rank == 3 else ""
    graph = build(
        f"""m (float[{batch}5, 6] x) => (float[{batch}5, 6] y) {{
            h = MatMul(A, x)
            b = Add(h, bias)
            r = Relu(b)
            y = MatMul(B, r)
        }}""",
        A=(8, 5),
        bias=(8, 1),
        B=(5, 8),
    )
    index = check(graph)
    assert widths(index) == {"MatMul_0": 8}
    assert [(m.tensor, m.axis) for m in index.groups[0].members] == [("A", 0), ("bias", 0), ("B", 1)]


def test_matmul_with_a_vector() -> None:
    graph = build(
        "m (float[N, 5] x) => (float[N] y) { h = MatMul(x, A) r = Relu(h) y = MatMul(r, v) }", A=(5, 8), v=(8,)
    )
    assert widths(check(graph)) == {"MatMul_0": 8}


def test_a_matrix_for_every_head_is_cut_along_the_heads() -> None:
    graph = build(
        """m (float[N, 5, 6] x) => (float[N, 5, 2] y) {
            h = MatMul(x, A)
            s = Reshape(h, split)
            t = Transpose <perm = [0, 2, 1, 3]> (s)
            p = MatMul(t, P)
            r = Relu(p)
            q = MatMul(r, Q)
            y = Einsum <equation = "nhqd,hdc->nqc"> (q, B)
        }""",
        split=[0, 5, 4, 3],
        A=(6, 12),
        P=(4, 3, 7),
        Q=(4, 7, 9),
        B=(4, 9, 2),
    )
    index = check(graph)
    assert widths(index) == {"MatMul_0": 4, "MatMul_3": 7}
    assert [(m.tensor, m.axis, m.width) for m in index.groups[0].members] == [
        ("A", 1, 12), ("P", 0, 4), ("Q", 0, 4), ("B", 0, 4)
    ]  # fmt: skip


def test_two_kinds_of_channels_on_one_axis_are_refused() -> None:
    """The columns of a matrix for every head, laid beside the columns of the next head."""
    graph = build(
        """m (float[N, 5, 6] x) => (float[N, 5, 2] y) {
            h = MatMul(x, A)
            s = Reshape(h, split)
            t = Transpose <perm = [0, 2, 1, 3]> (s)
            p = MatMul(t, P)
            u = Transpose <perm = [0, 2, 1, 3]> (p)
            f = Reshape(u, merge)
            y = MatMul(f, B)
        }""",
        split=[0, 5, 4, 3],
        merge=[0, 5, -1],
        A=(6, 12),
        P=(4, 3, 7),
        B=(28, 2),
    )
    index = build_index(graph)
    assert index.groups == ()
    assert reasons(index)["Reshape_5"] == "two kinds of channels end up on one axis"


ATTENTION = """
    kt = Transpose <perm = [0, 1, 3, 2]> (k)
    a = MatMul(q, kt)
    d = Mul(a, scale)
    p = Softmax(d)
    o = MatMul(p, v)
    ot = Transpose <perm = [0, 2, 1, 3]> (o)
    m = Reshape(ot, merge)
    w = MatMul(m, O)
    y = Add(w, x)
"""
ATTENTION_CONSTANTS = {"scale": np.array(0.5, np.float32), "merge": [0, 5, 12], "O": (12, 6)}
QKV = {
    "Gather": """s = Reshape(z, split) t = Transpose <perm = [2, 0, 3, 1, 4]> (s)
        q = Gather(t, k0) k = Gather(t, k1) v = Gather(t, k2)""",
    "Split": """s = Reshape(z, split) t = Transpose <perm = [2, 0, 3, 1, 4]> (s)
        q1, kk1, v1 = Split(t) q = Squeeze(q1, front) k = Squeeze(kk1, front) v = Squeeze(v1, front)""",
    "computed target": """f = Shape(x) n = Slice(f, one0, one2) target = Concat <axis = 0> (n, three)
        s = Reshape(z, target) t = Transpose <perm = [2, 0, 3, 1, 4]> (s)
        q = Gather(t, k0) k = Gather(t, k1) v = Gather(t, k2)""",
    "Split first": """q1, kk1, v1 = Split <axis = 2> (z)
        q2 = Reshape(q1, heads) kk2 = Reshape(kk1, heads) v2 = Reshape(v1, heads)
        q = Transpose <perm = [0, 2, 1, 3]> (q2) k = Transpose <perm = [0, 2, 1, 3]> (kk2)
        v = Transpose <perm = [0, 2, 1, 3]> (v2)""",
}
QKV_CONSTANTS: dict[str, Constant] = {
    "split": [0, 5, 3, 4, 3],
    "heads": [0, 5, 4, 3],
    "front": [0],
    "one0": [0],
    "one2": [2],
    "three": [3, 4, 3],
    **{f"k{i}": np.array(i, np.int64) for i in range(3)},
}


@pytest.mark.parametrize("way", QKV)
def test_the_heads_of_attention_in_one_product_are_one_group(way: str) -> None:
    used = {n: c for n, c in QKV_CONSTANTS.items() if re.search(rf"\b{n}\b(?! =)", QKV[way])}
    used.pop("k1" if way not in ("Gather", "computed target") else "", None)
    used.pop("k2" if way not in ("Gather", "computed target") else "", None)
    graph = build(
        f"""m (float[N, 5, 6] x) => (float[N, 5, 6] y) {{
            h = MatMul(x, A)
            z = Add(h, b)
            {QKV[way]}
            {ATTENTION}
        }}""",
        A=(6, 36),
        b=(36,),
        **ATTENTION_CONSTANTS,
        **used,
    )
    index = check(graph)
    assert widths(index) == {"MatMul_0": 4}
    assert [(m.tensor, m.axis, m.width) for m in index.groups[0].members] == [
        ("A", 1, 36), ("b", 0, 36), ("O", 0, 12)
    ]  # fmt: skip


@pytest.mark.parametrize("computed", [False, True])
def test_the_heads_of_attention_in_three_products_are_one_group(computed: bool) -> None:
    """Masked by what every head adds alike, with the target shapes constant or computed."""
    target = "heads = Concat <axis = 0> (n, k43)" if computed else ""
    projected = " ".join(
        f"{p}1 = MatMul(x, {p.upper()}) {p}2 = Add({p}1, {p}b) {p}3 = Reshape({p}2, heads)"
        f" {p} = Transpose <perm = [0, 2, 1, 3]> ({p}3)"
        for p in "qkv"
    )
    attention = ATTENTION.replace("merge", "merged") if computed else ATTENTION
    shapes = "f = Shape(x) n = Slice(f, one0, one2) merged = Concat <axis = 0> (n, k12)" if computed else ""
    constants = {"one0": [0], "one2": [2], "k43": [4, 3], "k12": [12]} if computed else {"heads": [0, 5, 4, 3]}
    kept = {n: c for n, c in ATTENTION_CONSTANTS.items() if not (computed and n == "merge")}
    graph = build(
        f"m (float[N, 5, 6] x) => (float[N, 5, 6] y) {{ {shapes} {target} {projected} {attention} }}",
        **{p.upper(): (6, 12) for p in "qkv"},
        **{f"{p}b": (12,) for p in "qkv"},
        **kept,
        **constants,
    )
    index = check(graph)
    assert [g.n_channels for g in index.groups] == [4]
    assert {(m.tensor, m.axis, m.width) for m in index.groups[0].members} == {
        ("Q", 1, 12), ("qb", 0, 12), ("K", 1, 12), ("kb", 0, 12), ("V", 1, 12), ("vb", 0, 12), ("O", 0, 12)
    }  # fmt: skip
    assert index.groups[0].name == f"MatMul_{4 if computed else 0}"


@pytest.mark.parametrize("equation", ["nlc,cd->nld", "...c,cd->...d", "nlc, cd -> nld"])
def test_einsum_with_a_constant_factor(equation: str) -> None:
    graph = build(
        f"""m (float[N, 5, 6] x) => (float[N, 5, 2] y) {{
            h = Einsum <equation = "{equation}"> (x, A)
            r = Relu(h)
            y = Einsum <equation = "{equation}"> (r, B)
        }}""",
        A=(6, 8),
        B=(8, 2),
    )
    index = check(graph)
    assert widths(index) == {"Einsum_0": 8}
    assert [(m.tensor, m.axis) for m in index.groups[0].members] == [("A", 1), ("B", 0)]


def test_einsum_of_two_computed_factors_is_attention() -> None:
    graph = build(
        """m (float[N, 5, 6] x) => (float[N, 5, 6] y) {
            q = Einsum <equation = "nlc,chd->nhld"> (x, Q)
            k = Einsum <equation = "nlc,chd->nhld"> (x, K)
            v = Einsum <equation = "nlc,chd->nhld"> (x, V)
            a = Einsum <equation = "nhqd,nhkd->nhqk"> (q, k)
            p = Softmax(a)
            o = Einsum <equation = "nhqk,nhkd->nqhd"> (p, v)
            y = Einsum <equation = "nqhd,hdc->nqc"> (o, O)
        }""",
        Q=(6, 4, 3),
        K=(6, 4, 3),
        V=(6, 4, 3),
        O=(4, 3, 6),
    )
    index = check(graph)
    assert index.group("Einsum_0").n_channels == 4


@pytest.mark.parametrize(
    ("equation", "reason"),
    [("nccp->ncp", "an index is repeated in one operand"), ("nabp", "the equation leaves its output to be guessed")],
)
def test_einsum_is_refused_where_its_indices_do_not_tell_axes_apart(equation: str, reason: str) -> None:
    graph = build(
        f"""m (float[N, 3, 6, 4] x) => (float[A, B, C{", D" if "->" not in equation else ""}] y) {{
            c = Conv(x, W)
            y = Einsum <equation = "{equation}"> (c)
        }}""",
        W=(6, 3, 1, 1),
    )
    index = build_index(graph)
    assert index.groups == ()
    assert reasons(index)["Einsum_1"] == reason


HEADED: dict[str, tuple[str, dict[str, Constant], int]] = {
    "beside the open batch": (
        """m (float[5, N, 6] x) => (float[5, N, 6] y) {
            q1 = MatMul(x, Q) k1 = MatMul(x, K) v1 = MatMul(x, V)
            f = Shape(x) n = Slice(f, one, two) nh = Mul(n, four)
            h = Concat <axis = 0> (five, nh, three) g = Concat <axis = 0> (five, n, twelve)
            q2 = Reshape(q1, h) k2 = Reshape(k1, h) v2 = Reshape(v1, h)
            q = Transpose <perm = [1, 0, 2]> (q2) kt = Transpose <perm = [1, 2, 0]> (k2)
            v = Transpose <perm = [1, 0, 2]> (v2)
            a = MatMul(q, kt) p = Softmax(a) o = MatMul(p, v)
            ot = Transpose <perm = [1, 0, 2]> (o) m = Reshape(ot, g) y = MatMul(m, O)
        }""",
        {"one": [1], "two": [2], "four": [4], "five": [5], "three": [3], "twelve": [12]},
        4,
    ),
    "beside a fixed batch": (
        """m (float[5, 2, 6] x) => (float[5, 2, 6] y) {
            q1 = MatMul(x, Q) k1 = MatMul(x, K) v1 = MatMul(x, V)
            q2 = Reshape(q1, h) k2 = Reshape(k1, h) v2 = Reshape(v1, h)
            q = Transpose <perm = [1, 0, 2]> (q2) kt = Transpose <perm = [1, 2, 0]> (k2)
            v = Transpose <perm = [1, 0, 2]> (v2)
            a = MatMul(q, kt) p = Softmax(a) o = MatMul(p, v)
            ot = Transpose <perm = [1, 0, 2]> (o) m = Reshape(ot, g) y = MatMul(m, O)
        }""",
        {"h": [5, 8, 3], "g": [5, 2, 12]},
        4,
    ),
    "keys shared by two queries": (
        """m (float[N, 5, 6] x) => (float[N, 5, 6] y) {
            q1 = MatMul(x, Q) k1 = MatMul(x, K) v1 = MatMul(x, V)
            q2 = Reshape(q1, h4) q = Transpose <perm = [0, 2, 1, 3]> (q2)
            k2 = Reshape(k1, h2) k3 = Transpose <perm = [0, 2, 1, 3]> (k2)
            v2 = Reshape(v1, h2) v3 = Transpose <perm = [0, 2, 1, 3]> (v2)
            k4 = Unsqueeze(k3, two) k5 = Expand(k4, e) k = Reshape(k5, r)
            v4 = Unsqueeze(v3, two) v5 = Expand(v4, e) v = Reshape(v5, r)
            kt = Transpose <perm = [0, 1, 3, 2]> (k) a = MatMul(q, kt) p = Softmax(a) o = MatMul(p, v)
            ot = Transpose <perm = [0, 2, 1, 3]> (o) m = Reshape(ot, g) y = MatMul(m, O)
        }""",
        {"h4": [0, 5, 4, 3], "h2": [0, 5, 2, 3], "two": [2], "e": [1, 2, 2, 5, 3], "r": [-1, 4, 5, 3], "g": [0, 5, 12]},
        2,
    ),
}


@pytest.mark.parametrize("case", HEADED)
def test_heads_that_share_their_axis(case: str) -> None:
    text, constants, n_heads = HEADED[case]
    keys = 6 if n_heads == 2 else 12
    graph = build(text, Q=(6, 12), K=(6, keys), V=(6, keys), O=(12, 6), **constants)
    assert widths(check(graph)) == {"MatMul_0": n_heads}


def test_attention_in_windows() -> None:
    """Swin: windows are laid into the batch and back, a bias of every head is cut with it."""
    graph = build(
        """m (float[N, 8, 8, 6] x) => (float[N, 8, 8, 6] y) {
            p1 = Reshape(x, w1) p2 = Transpose <perm = [0, 1, 3, 2, 4, 5]> (p1) w = Reshape(p2, w2)
            z = MatMul(w, A) s = Reshape(z, s5) t = Transpose <perm = [2, 0, 3, 1, 4]> (s)
            q = Gather(t, k0) k = Gather(t, k1) v = Gather(t, k2)
            kt = Transpose <perm = [0, 1, 3, 2]> (k) a = MatMul(q, kt) ab = Add(a, bias) p = Softmax(ab)
            o = MatMul(p, v) ot = Transpose <perm = [0, 2, 1, 3]> (o) m = Reshape(ot, g) y1 = MatMul(m, O)
            y2 = Reshape(y1, u1) y3 = Transpose <perm = [0, 1, 3, 2, 4, 5]> (y2) y = Reshape(y3, u2)
        }""",
        **{f"k{i}": np.array(i, np.int64) for i in range(3)},
        w1=[-1, 2, 4, 2, 4, 6],
        w2=[-1, 16, 6],
        s5=[-1, 16, 3, 4, 3],
        g=[-1, 16, 12],
        u1=[-1, 2, 2, 4, 4, 6],
        u2=[-1, 8, 8, 6],
        A=(6, 36),
        bias=(1, 4, 16, 16),
        O=(12, 6),
    )
    index = check(graph)
    assert widths(index) == {"MatMul_3": 4}
    assert ("bias", 1, 4) in [(m.tensor, m.axis, m.width) for m in index.groups[0].members]


def test_einsum_of_one_operand_sums_over_its_channels() -> None:
    graph = build(
        """m (float[N, 3] x) => (float[N] y) { c = MatMul(x, A) r = Sigmoid(c) y = Einsum <equation = "nc->n"> (r) }""",
        A=(3, 6),
    )
    assert widths(check(graph)) == {"MatMul_0": 6}


def test_einsum_sums_over_the_channels_of_two_operands() -> None:
    graph = build(
        """m (float[N, 6] x) => (float[N, 2] y) {
            a = MatMul(x, A) b = MatMul(x, B) y = Einsum <equation = "nc,nd,cde->ne"> (a, b, C) }""",
        A=(6, 5),
        B=(6, 7),
        C=(5, 7, 2),
    )
    assert widths(check(graph)) == {"MatMul_0": 5, "MatMul_1": 7}


@pytest.mark.parametrize("n_heads", [4, 2])
def test_attention_as_one_operator(n_heads: int) -> None:
    graph = build(
        f"""m (float[N, 5, 6] x) => (float[N, 5, 6] y) {{
            q = MatMul(x, Q)
            k = MatMul(x, K)
            v = MatMul(x, V)
            o = Attention <q_num_heads = 4, kv_num_heads = {n_heads}> (q, k, v)
            y = MatMul(o, O)
        }}""",
        opset=23,
        ir=11,
        Q=(6, 12),
        K=(6, 3 * n_heads),
        V=(6, 3 * n_heads),
        O=(12, 6),
    )
    index = check(graph) if n_heads == 4 else build_index(graph)
    assert widths(index) == ({"MatMul_0": 4} if n_heads == 4 else {})
    assert ("Attention_3" in reasons(index)) is (n_heads == 2)
