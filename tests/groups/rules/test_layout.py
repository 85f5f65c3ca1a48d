from __future__ import annotations

import numpy as np
import onnx
import pytest

from bocr_onnx.graph import from_proto
from bocr_onnx.groups import GroupIndex, build_index
from bocr_onnx.slimming import cut
from tests.oracle import build, check, random_mask, reasons, widths

CONV = {"W": (6, 3, 1, 1), "V": (2, 6, 1, 1)}
FLAT = {"W": (6, 3, 1, 1), "b": (6,), "G": (96, 5)}
"""A Conv of 6 channels on 4 x 4 positions, flattened into a Gemm."""


def into_gemm(nodes: str) -> str:
    return f"""m (float[N, 3, 4, 4] x) => (float[N, 5] y) {{ c = Conv(x, W, b) r = Relu(c) {nodes} y = Gemm(f, G) }}"""


def assert_flat(index: GroupIndex) -> None:
    (group,) = index.groups
    assert (group.name, group.n_channels) == ("Conv_0", 6)
    assert [(m.tensor, m.axis, m.width) for m in group.members] == [("W", 0, 6), ("b", 0, 6), ("G", 0, 96)]


@pytest.mark.parametrize("axis", [1, -3])
def test_flatten_into_gemm_repeats_every_channel(axis: int) -> None:
    assert_flat(check(build(into_gemm(f"f = Flatten <axis = {axis}> (r)"), **FLAT)))


@pytest.mark.parametrize("target", [[-1, 96], [0, 96], [0, -1]])
def test_reshape_into_gemm_with_a_constant_target(target: list[int]) -> None:
    graph = build(into_gemm("f = Reshape(r, t)"), t=target, **FLAT)
    index = check(graph)
    assert_flat(index)
    mask = random_mask(index, 0)
    stored = {t.name: t for t in cut(graph, index, mask).graph.initializer}
    width = -1 if target[1] == -1 else 16 * int(mask.sum())
    assert np.frombuffer(stored["t"].raw_data, np.int64).tolist() == [target[0], width]


def test_reshape_with_a_fixed_batch_of_one() -> None:
    graph = build(into_gemm("f = Reshape(r, t)").replace("N", "1"), t=[1, 96], **FLAT)
    assert_flat(check(graph))


@pytest.mark.parametrize("last", [[96], [-1]])
def test_reshape_into_gemm_with_a_computed_target(last: list[int]) -> None:
    nodes = "s = Shape(r) n = Gather(s, zero) u = Unsqueeze(n, first) t = Concat <axis = 0> (u, k) f = Reshape(r, t)"
    graph = build(into_gemm(nodes), zero=np.array(0, np.int64), first=[0], k=last, **FLAT)
    assert_flat(check(graph))


def test_reshape_to_a_target_that_reads_the_width_off_the_tensor() -> None:
    nodes = """s = Shape(r) n = Gather(s, zero) u = Unsqueeze(n, first)
        q = Gather(s, one) v = Unsqueeze(q, first) t = Concat <axis = 0> (u, v, k) p = Reshape(r, t) f = Flatten(p)"""
    graph = build(into_gemm(nodes), zero=np.array(0, np.int64), one=np.array(1, np.int64), first=[0], k=[16], **FLAT)
    assert_flat(check(graph))


def test_two_reshapes_that_share_a_computed_target_go_together() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 5] y, float[N, 5] z) {
            c = Conv(x, W)
            d = Conv(x, U)
            s = Shape(x)
            n = Gather(s, zero)
            u = Unsqueeze(n, first)
            t = Concat <axis = 0> (u, k)
            f = Reshape(c, t)
            g = Reshape(d, t)
            y = Gemm(f, G)
            z = Gemm(g, H)
        }""",
        zero=np.array(0, np.int64),
        first=[0],
        k=[96],
        W=(6, 3, 1, 1),
        U=(6, 3, 1, 1),
        G=(96, 5),
        H=(96, 5),
    )
    assert widths(check(graph)) == {"Conv_0": 6}


def test_a_target_that_reads_the_width_off_another_tensor_ties_the_two() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 16] y, float[N, 2, 4, 4] z) {
            c = Conv(x, W)
            d = Conv(x, U)
            s = Shape(d)
            n = Gather(s, one)
            u = Unsqueeze(n, first)
            t = Concat <axis = 0> (k0, u, k16)
            f = Reshape(c, t)
            y = Conv(f, V)
            z = Conv(d, T)
        }""",
        one=np.array(1, np.int64),
        first=[0],
        k0=[0],
        k16=[16],
        W=(6, 3, 1, 1),
        U=(6, 3, 1, 1),
        V=(2, 6, 1),
        T=(2, 6, 1, 1),
    )
    assert widths(check(graph)) == {"Conv_0": 6}


@pytest.mark.parametrize("maker", ["Conv(x, U)", "Relu(x)"], ids=["labelled", "unlabelled"])
def test_the_shape_of_one_tensor_as_target_of_another_freezes_both(maker: str) -> None:
    graph = build(
        f"""m (float[N, 6, 4, 4] x) => (float[N, 2, 4, 4] y) {{
            c = Conv(x, W)
            e = {maker}
            s = Shape(c)
            f = Reshape(e, s)
            g = Conv(f, T)
            y1 = Conv(g, V)
            y2 = Conv(c, V2)
            y = Add(y1, y2)
        }}""",
        W=(6, 6, 1, 1),
        U=(6, 6, 1, 1),
        T=(8, 6, 1, 1),
        V=(2, 8, 1, 1),
        V2=(2, 6, 1, 1),
    )
    assert widths(check(graph)) == {"Conv_4": 8}


def test_channels_counted_in_the_target_of_an_unlabelled_tensor_are_frozen() -> None:
    graph = build(
        """m (float[N, 96] x, float[N, 3, 4, 4] w) => (float[N, 2, 4, 4] y) {
            c = Conv(w, W)
            s = Shape(c)
            n = Gather(s, one)
            u = Unsqueeze(n, first)
            t = Concat <axis = 0> (k0, u, k44)
            f = Reshape(x, t)
            g = Conv(f, T)
            y1 = Conv(g, V)
            y2 = Conv(c, V2)
            y = Add(y1, y2)
        }""",
        one=np.array(1, np.int64),
        first=[0],
        k0=[0],
        k44=[4, 4],
        W=(6, 3, 1, 1),
        T=(8, 6, 1, 1),
        V=(2, 8, 1, 1),
        V2=(2, 6, 1, 1),
    )
    assert widths(check(graph)) == {"Conv_6": 8}


def test_reshape_that_splits_the_channels_is_refused() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            c = Conv(x, W)
            s = Reshape(c, split)
            t = Transpose <perm = [0, 2, 1, 3, 4]> (s)
            m = Reshape(t, merge)
            y = Conv(m, V)
        }""",
        split=[0, 2, 3, 4, 4],
        merge=[0, 6, 4, 4],
        **CONV,
    )
    index = build_index(graph)
    assert index.groups == ()
    assert reasons(index)["Reshape_1"] == "Reshape from (1, 6, 4, 4) to (1, 2, 3, 4, 4) splits or mixes the channels"


def test_transpose_to_channels_last_and_back() -> None:
    graph = build(
        """m (float[N, 4, 4, 3] x) => (float[N, 4, 4, 2] y) {
            i = Transpose <perm = [0, 3, 1, 2]> (x)
            c = Conv(i, W)
            h = Transpose <perm = [0, 2, 3, 1]> (c)
            a = Add(h, k)
            r = Relu(a)
            b = Transpose <perm = [0, 3, 1, 2]> (r)
            d = Conv(b, V)
            y = Transpose <perm = [0, 2, 3, 1]> (d)
        }""",
        k=(6,),
        **CONV,
    )
    index = check(graph)
    assert [(m.tensor, m.axis) for m in index.groups[0].members] == [("W", 0), ("k", 0), ("V", 1)]


def test_transpose_without_order_reverses_the_axes() -> None:
    graph = build(
        "m (float[N, 3] x) => (float[2, N] y) { a = MatMul(x, A) b = MatMul(a, B) y = Transpose(b) }",
        A=(3, 6),
        B=(6, 2),
    )
    assert widths(check(graph)) == {"MatMul_0": 6}


def test_channels_last_into_matmul() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 4, 4, 2] y) {
            c = Conv(x, W)
            h = Transpose <perm = [0, 2, 3, 1]> (c)
            y = MatMul(h, M)
        }""",
        W=(6, 3, 1, 1),
        M=(6, 2),
    )
    assert widths(check(graph)) == {"Conv_0": 6}


@pytest.mark.parametrize("opset", [11, 13])
def test_squeeze_and_unsqueeze_renumber_the_axes(opset: int) -> None:
    pooled = "c = Conv(x, W) p = GlobalAveragePool(c)"
    if opset == 13:
        moved = "q = Squeeze(p, space) g = Gemm(q, A) u = Unsqueeze(g, space) y = Conv(u, V)"
        axes = {"space": [2, 3]}
    else:
        moved = "q = Squeeze <axes = [2, 3]> (p) g = Gemm(q, A) u = Unsqueeze <axes = [2, 3]> (g) y = Conv(u, V)"
        axes = {}
    graph = build(
        f"m (float[N, 3, 4, 4] x) => (float[N, 2, 1, 1] y) {{ {pooled} {moved} }}",
        opset=opset,
        W=(6, 3, 1, 1),
        A=(6, 8),
        V=(2, 8, 1, 1),
        **axes,
    )
    index = check(graph)
    assert widths(index) == {"Conv_0": 6, "Gemm_3": 8}


def test_squeeze_of_a_leading_axis_moves_the_channels_forward() -> None:
    graph = build(
        """m (float[N, 3] x) => (float[N, 2] y) {
            a = MatMul(x, A)
            u = Unsqueeze(a, front)
            k = Add(u, bias)
            s = Squeeze(k, front)
            y = MatMul(s, B)
        }""",
        front=[0],
        bias=(1, 1, 6),
        A=(3, 6),
        B=(6, 2),
    )
    index = check(graph)
    assert [(m.tensor, m.axis) for m in index.groups[0].members] == [("A", 1), ("bias", 2), ("B", 0)]


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
    assert reasons(index)["Concat_1"] == "it lies beside 'x', whose channels cannot be cut"


def test_declared_shapes_follow_the_cut() -> None:
    graph = build(into_gemm("f = Flatten(r)"), **FLAT)
    made = graph.proto
    declared = onnx.ModelProto()
    declared.CopyFrom(made)
    declared.graph.value_info.append(onnx.helper.make_tensor_value_info("r", 1, ["N", 6, 4, 4]))
    declared.graph.value_info.append(onnx.helper.make_tensor_value_info("f", 1, ["N", 96]))
    again = from_proto(declared)
    index = check(again)
    mask = random_mask(index, 1)
    kept = int(mask.sum())
    infos = {i.name: i for i in cut(again, index, mask).graph.value_info}
    dims = {n: [d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim] for n, i in infos.items()}
    assert dims == {"r": ["N", kept, 4, 4], "f": ["N", 16 * kept]}
