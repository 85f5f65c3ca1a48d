from __future__ import annotations

import numpy as np
import onnx
import pytest

from bocr_onnx.graph import from_proto
from bocr_onnx.groups import GroupIndex, build_index
from bocr_onnx.slimming import cut, prove_cut
from tests.oracle import build, check, random_mask, reasons, run, widths

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
    stored = {t.name: t for t in cut(index, mask).graph.initializer}
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


def test_a_target_that_reads_a_constant_width_off_another_tensor_follows_its_own() -> None:
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
    assert widths(check(graph)) == {"Conv_0": 6, "Conv_1": 6}


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


@pytest.mark.parametrize("count", ["n = Gather(s, one) u = Unsqueeze(n, first)", "u = Slice(s, first, k2)"])
def test_channels_counted_in_the_target_of_an_unlabelled_tensor(count: str) -> None:
    """A count of its own becomes a constant; one beside the open batch stays computed and freezes."""
    pinned = "Gather" in count
    graph = build(
        f"""m (float[N, 96] x, float[N, 3, 4, 4] w) => (float[N, 2, 4, 4] y) {{
            c = Conv(w, W)
            s = Shape(c)
            {count}
            t = Concat <axis = 0> ({"k0, " if pinned else ""}u, k44)
            f = Reshape(x, t)
            g = Conv(f, T)
            y1 = Conv(g, V)
            y2 = Conv(c, V2)
            y = Add(y1, y2)
        }}""",
        first=[0],
        **({"one": np.array(1, np.int64), "k0": [0]} if pinned else {"k2": [2]}),
        k44=[4, 4],
        W=(6, 3, 1, 1),
        T=(8, 6, 1, 1),
        V=(2, 8, 1, 1),
        V2=(2, 6, 1, 1),
    )
    maker = "Conv_6" if pinned else "Conv_5"
    assert widths(check(graph)) == {maker: 8, **({"Conv_0": 6} if pinned else {})}


def test_a_channel_shuffle_is_a_permutation_of_which_any_channel_may_go() -> None:
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
    index = check(graph)
    assert widths(index) == {"Conv_0": 6}
    assert [n.op_type for n in cut(index, random_mask(index, 0)).graph.node] == ["Conv", "Gather", "Conv"]


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
    infos = {i.name: i for i in cut(index, mask).graph.value_info}
    dims = {n: [d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim] for n, i in infos.items()}
    assert dims == {"r": ["N", kept, 4, 4], "f": ["N", 16 * kept]}


def test_a_channel_shuffle_with_computed_targets() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            c = Conv(x, W)
            s = Shape(c)
            n = Slice(s, k0, k1)
            hw = Slice(s, k2, k4)
            w = Slice(s, k1, k2)
            half = Div(w, k2)
            split = Concat <axis = 0> (n, k2, half, hw)
            p = Reshape(c, split)
            t = Transpose <perm = [0, 2, 1, 3, 4]> (p)
            merge = Concat <axis = 0> (n, minus, hw)
            m = Reshape(t, merge)
            y = Conv(m, V)
        }""",
        k0=[0],
        k1=[1],
        k2=[2],
        k4=[4],
        minus=[-1],
        **CONV,
    )
    assert widths(check(graph)) == {"Conv_0": 6}


BETWEEN = """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {{
    c = Conv(x, W)
    {targets}
    p = Reshape(c, split)
    r = Sigmoid(p)
    t = Transpose <perm = [0, 2, 1, 3, 4]> (r)
    m = Reshape(t, merge)
    y = Conv(m, V)
}}"""


@pytest.mark.parametrize("computed", [False, True])
def test_a_shuffle_with_an_activation_in_it_keeps_its_blocks_equal(computed: bool) -> None:
    """All but the longest axis are tied: the blocks keep the same of their three channels."""
    if computed:
        made = (
            "s = Shape(c) n = Slice(s, k0, k1) split = Concat <axis = 0> (n, k2344) merge = Concat <axis = 0> (n, k644)"
        )
        constants = {"k0": [0], "k1": [1], "k2344": [2, 3, 4, 4], "k644": [6, 4, 4]}
    else:
        made, constants = "", {"split": [0, 2, 3, 4, 4], "merge": [0, 6, 4, 4]}
    graph = build(BETWEEN.format(targets=made), **CONV, **constants)
    index = check(graph)
    assert widths(index) == {"Conv_0": 3}
    mask = random_mask(index, 0)
    kept = int(mask.sum())
    slim = cut(index, mask).graph
    stored = {t.name: np.frombuffer(t.raw_data, np.int64).tolist() for t in slim.initializer if t.data_type == 7}
    assert stored["k2344" if computed else "split"] == [2, kept, 4, 4] if computed else [0, 2, kept, 4, 4]
    assert stored["k644" if computed else "merge"] == [2 * kept, 4, 4] if computed else [0, 2 * kept, 4, 4]


def test_an_operator_that_mixes_one_axis_of_a_split_leaves_the_other_free() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            c = Conv(x, W)
            p = Reshape(c, split)
            r = Softmax <axis = 2> (p)
            m = Reshape(r, merge)
            y = Conv(m, V)
        }""",
        split=[0, 2, 3, 4, 4],
        merge=[0, 6, 4, 4],
        **CONV,
    )
    assert widths(check(graph)) == {"Conv_0": 2}


def test_a_reshape_without_common_factors_mixes_the_channels() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 6, 4] y) {
            c = Conv(x, W)
            p = Reshape(c, target)
            d = Conv(p, U)
            y = Conv(d, V)
        }""",
        target=[0, 4, 6, 4],
        W=(6, 3, 1, 1),
        U=(5, 4, 1, 1),
        V=(2, 5, 1, 1),
    )
    index = check(graph)
    assert widths(index) == {"Conv_2": 5}
    assert reasons(index)["Reshape_1"] == "Reshape from (1, 6, 4, 4) to (1, 4, 6, 4) mixes the channels"


SHUFFLED = """m (float[N, 3, 4, 4] x) => (float[N, 2, 8, 8] y) {{
    c = Conv(x, W, b)
    {nodes}
    r = Relu(u)
    y = Conv(r, V)
}}"""
SHUFFLES = {
    "DCR": ('u = DepthToSpace <blocksize = 2, mode = "DCR"> (c)', {}),
    "CRD": ('u = DepthToSpace <blocksize = 2, mode = "CRD"> (c)', {}),
    "by Reshape": (
        "p = Reshape(c, split) t = Transpose <perm = [0, 1, 4, 2, 5, 3]> (p) u = Reshape(t, merge)",
        {"split": [0, 3, 2, 2, 4, 4], "merge": [0, 3, 8, 8]},
    ),
}


@pytest.mark.parametrize("way", SHUFFLES)
def test_a_pixel_shuffle_ties_the_channels_that_become_one(way: str) -> None:
    nodes, constants = SHUFFLES[way]
    graph = build(SHUFFLED.format(nodes=nodes), W=(12, 3, 1, 1), b=(12,), V=(2, 3, 1, 1), **constants)
    index = check(graph)
    assert widths(index) == {"Conv_0": 3}
    assert [(m.tensor, m.width) for m in index.groups[0].members] == [("W", 12), ("b", 12), ("V", 3)]


@pytest.mark.parametrize("way", ["operator", "by Reshape"])
def test_space_to_depth_repeats_the_channels(way: str) -> None:
    by_reshape = "p = Reshape(c, split) t = Transpose <perm = [0, 3, 5, 1, 2, 4]> (p) u = Reshape(t, merge)"
    graph = build(
        f"""m (float[N, 3, 4, 4] x) => (float[N, 2, 2, 2] y) {{
            c = Conv(x, W)
            {"u = SpaceToDepth <blocksize = 2> (c)" if way == "operator" else by_reshape}
            y = Conv(u, V)
        }}""",
        W=(6, 3, 1, 1),
        V=(2, 24, 1, 1),
        **({} if way == "operator" else {"split": [0, 6, 2, 2, 2, 2], "merge": [0, 24, 2, 2]}),
    )
    index = check(graph)
    assert widths(index) == {"Conv_0": 6}
    assert [(m.tensor, m.width) for m in index.groups[0].members] == [("W", 6), ("V", 24)]


@pytest.mark.parametrize("mixed", ["N", "L"])
def test_channels_that_a_reshape_mixes_with_an_open_axis_are_frozen(mixed: str) -> None:
    """At a size of one nothing would be mixed."""
    other = "N, " if mixed == "L" else ""
    graph = build(
        f"""m (float[{other}{mixed}, 3] x) => (float[{other}{mixed}, 2] y) {{
            c = MatMul(x, A)
            p = Reshape(c, target)
            s = Softmax(p)
            q = Reshape(s, back)
            y = MatMul(q, B)
        }}""",
        target=[0, 6, -1] if mixed == "L" else [6, -1],
        back=[0, -1, 6] if mixed == "L" else [-1, 6],
        A=(3, 6),
        B=(6, 2),
    )
    assert widths(build_index(graph)) == {}


def test_a_choice_between_two_branches_by_softmax_keeps_the_channels() -> None:
    """Selective kernels: one weight per branch and channel, normalized over the branches."""
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            a = Conv(x, A)
            b = Conv(x, B)
            s = Add(a, b)
            g = GlobalAveragePool(s)
            f = Conv(g, F)
            r = Sigmoid(f)
            z = Conv(r, Z)
            zr = Reshape(z, two)
            w = Softmax <axis = 1> (zr)
            w0, w1 = Split <axis = 1> (w)
            p0 = Squeeze(w0, one)
            p1 = Squeeze(w1, one)
            a2 = Mul(a, p0)
            b2 = Mul(b, p1)
            o = Add(a2, b2)
            y = Conv(o, V)
        }""",
        two=[0, 2, 6, 1, 1],
        one=[1],
        A=(6, 3, 1, 1),
        B=(6, 3, 1, 1),
        F=(4, 6, 1, 1),
        Z=(12, 4, 1, 1),
        V=(2, 6, 1, 1),
    )
    assert widths(check(graph)) == {"Conv_0": 6, "Conv_4": 4}


@pytest.mark.parametrize("batch", [1, 2])
def test_blocks_of_channels_laid_into_a_fixed_batch(batch: int) -> None:
    graph = build(
        f"""m (float[{batch}, 3, 4, 4] x) => (float[{batch}, 2, 4, 4] y) {{
            c = Conv(x, W)
            p = Reshape(c, blocks)
            d = Conv(p, U)
            q = Reshape(d, back)
            y = Conv(q, V)
        }}""",
        blocks=[2 * batch, 3, 4, 4],
        back=[batch, 10, 4, 4],
        W=(6, 3, 1, 1),
        U=(5, 3, 1, 1),
        V=(2, 10, 1, 1),
    )
    assert widths(check(graph)) == {"Conv_0": 3, "Conv_2": 5}


def test_a_batch_of_one_baked_into_the_target_freezes_nothing() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[1, 2, 16] y) {
            c = Conv(x, W) r = Reshape(c, t) s = Relu(r) y = Conv(s, V)
        }""",
        W=(6, 3, 1, 1),
        V=(2, 6, 1),
        t=[1, 6, 16],
    )
    index = build_index(graph)
    assert widths(index) == {"Conv_0": 6}
    mask = random_mask(index, 0)
    assert prove_cut(index, mask, cut(index, mask), run, batch=1).passed
