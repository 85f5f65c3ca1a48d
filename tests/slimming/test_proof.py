from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from bocr_onnx.errors import ModelError, ProofError
from bocr_onnx.graph import Array, Edit, ModelGraph, apply_edit, from_proto, random_feeds
from bocr_onnx.groups import GroupIndex, build_index
from bocr_onnx.slimming import check_runs, compare, cut, filled, masked_original, prove_cut, prove_structure
from bocr_onnx.slimming.difference import TOLERANCE
from tests.oracle import build, drawn, proto, random_mask, run

SHORTCUT = """m (float[N, 3, 8, 8] x) => (float[N, 4] y) {
    c = Conv <pads = [1, 1, 1, 1]> (x, W, wb)
    r = Relu(c)
    b = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (r, B)
    s = Slice(r, starts, ends, axes, steps)
    p = Pad(s, pads)
    a = Add(b, p)
    m = Conv <group = 8> (a, D)
    f = Reshape(m, target)
    y = Gemm(f, G)
}"""
CONSTANTS = {
    "W": (4, 3, 3, 3), "wb": (4,), "B": (8, 4, 3, 3), "D": (8, 1, 1, 1), "G": (128, 4), "target": [0, 128],
    "starts": [0, 0], "ends": [8, 8], "axes": [2, 3], "steps": [2, 2], "pads": [0, 2, 0, 0, 0, 2, 0, 0],
}  # fmt: skip


@pytest.fixture(scope="module")
def graph() -> ModelGraph:
    return build(SHORTCUT, **CONSTANTS)


@pytest.fixture(scope="module")
def index(graph: ModelGraph) -> GroupIndex:
    return build_index(graph)


MASK = np.array([1, 0, 1, 1, 1, 0, 1, 1], dtype=bool)


def replaced(model: ModelProto, name: str, array: Array) -> ModelProto:
    made = ModelProto()
    made.CopyFrom(model)
    tensor = next(t for t in made.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(array, name))
    return made


def tensor(model: ModelProto, name: str) -> Array:
    return numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name))


def test_a_right_cut_is_proved(graph: ModelGraph, index: GroupIndex) -> None:
    proof = prove_cut(index, MASK, cut(index, MASK), run)
    assert proof.passed
    assert proof.max_rel_diff <= proof.tolerance == TOLERANCE
    assert proof.max_abs_diff < 1e-4


@pytest.mark.parametrize("name", ["W", "wb", "B", "D", "G"])
def test_one_tampered_weight_of_a_plain_cut_fails(graph: ModelGraph, index: GroupIndex, name: str) -> None:
    slim = cut(index, MASK)
    array = tensor(slim, name).copy()
    array.reshape(-1)[0] += 0.5
    with pytest.raises(ProofError, match="must carry the original's kept weights"):
        prove_cut(index, MASK, replaced(slim, name, array), run)


def test_other_channels_than_the_plans_fail(graph: ModelGraph, index: GroupIndex) -> None:
    swapped = MASK.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    slim = cut(index, swapped)
    with pytest.raises(ProofError, match="must carry the original's kept weights"):
        prove_cut(index, MASK, slim, run)
    assert prove_cut(index, swapped, slim, run).passed


def test_weights_must_be_the_declared_ones(graph: ModelGraph, index: GroupIndex) -> None:
    B = drawn(cut_shape(graph, index, "B"), 3)
    slim = cut(index, MASK, {(2, 1): B})
    assert prove_cut(index, MASK, slim, run, weights={(2, 1): B}).passed
    assert prove_structure(index, MASK, slim, run).passed
    for wrong in ({}, {(0, 1): B}, {(2, 1): B + 1}):
        with pytest.raises(ProofError, match="must carry the original's kept weights"):
            prove_cut(index, MASK, slim, run, weights=wrong)


def cut_shape(graph: ModelGraph, index: GroupIndex, name: str) -> tuple[int, ...]:
    return tensor(cut(index, MASK), name).shape


def test_a_padding_on_the_wrong_side_fails(graph: ModelGraph, index: GroupIndex) -> None:
    """Every weight is right and every shape fits, but the streams meet shifted by one channel."""
    slim = cut(index, MASK)
    pads = tensor(slim, "pads").copy()
    assert pads.tolist() == [0, 1, 0, 0, 0, 2, 0, 0]
    pads[[1, 5]] = pads[[5, 1]]
    with pytest.raises(ProofError, match="must equal the masked original") as caught:
        prove_structure(index, MASK, replaced(slim, "pads", pads), run)
    assert "`freeze=PATTERN`" in caught.value.hint


def test_a_window_at_the_wrong_place_fails(graph: ModelGraph, index: GroupIndex) -> None:
    slim = cut(index, MASK)
    with pytest.raises(ProofError, match="must equal the masked original"):
        prove_structure(index, MASK, replaced(slim, "starts", np.array([1, 1])), run)


def test_a_label_on_the_wrong_channel_fails() -> None:
    """If a rule had shifted the labels, the cut would drop other input channels than the producer dropped."""
    graph = build(
        "m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) { c = Conv(x, W) r = Relu(c) y = Conv(r, V) }",
        W=(6, 3, 1, 1),
        V=(2, 6, 1, 1),
    )
    index = build_index(graph)
    axes = {**index.slices[(2, 1)], 1: np.roll(index.slices[(2, 1)][1], 1)}
    index = replace(index, slices={**index.slices, (2, 1): axes})
    mask = np.array([1, 0, 1, 1, 0, 0], dtype=bool)
    with pytest.raises(ProofError, match="must equal the masked original"):
        prove_cut(index, mask, cut(index, mask), run)


def test_an_invalid_slim_model_fails(graph: ModelGraph, index: GroupIndex) -> None:
    slim = cut(index, MASK)
    slim.graph.node[1].op_type = "Frobnicate"
    with pytest.raises(ProofError, match="must be valid"):
        prove_structure(index, MASK, slim, run)


def test_a_slim_model_of_another_output_shape_fails() -> None:
    text = "m (float[N, 3, 4, 4] x) => (float[N, K, 4, 4] y) { c = Conv(x, W) r = Relu(c) y = Conv(r, V) }"
    graph = build(text, W=(6, 3, 1, 1), V=(2, 6, 1, 1))
    other = build(text, W=(6, 3, 1, 1), V=(1, 6, 1, 1))
    mask = np.ones(6, dtype=bool)
    with pytest.raises(ProofError, match=r"must keep the shape of 'y', \(1, 2, 4, 4\), got \(1, 1, 4, 4\)"):
        prove_structure(build_index(graph), mask, other.proto, run)


def test_a_slim_model_that_does_not_run_fails(graph: ModelGraph, index: GroupIndex) -> None:
    def broken(model: ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
        if model is graph.proto:
            return run(model, feeds)
        raise RuntimeError("no memory")

    with pytest.raises(ProofError, match="must run, got: no memory"):
        prove_structure(index, MASK, cut(index, MASK), broken)


def test_an_original_that_does_not_run_is_not_blamed_on_the_cut(graph: ModelGraph, index: GroupIndex) -> None:
    def broken(model: ModelProto, feeds: object) -> list[Array]:
        raise RuntimeError("no such axis")

    with pytest.raises(ModelError, match="must run on random inputs, got: no such axis"):
        prove_structure(index, MASK, cut(index, MASK), broken)


def test_a_saturated_softmax_hides_no_error() -> None:
    """The probabilities are one and zero whatever the cut does; the logits before them are compared as well."""
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] p) {
            c = Conv(x, W)
            q = Pad(c, pads)
            d = Conv(x, U)
            a = Add(d, q)
            y = Conv(a, V, b)
            p = Softmax <axis = 1> (y)
        }""",
        pads=[0, 2, 0, 0, 0, 2, 0, 0],
        W=(4, 3, 1, 1),
        U=(8, 3, 1, 1),
        V=(2, 8, 1, 1),
        b=np.array([1e3, -1e3], np.float32),
    )
    index = build_index(graph)
    mask = np.ones(8, dtype=bool)
    mask[4] = False
    slim = cut(index, mask)
    assert prove_structure(index, mask, slim, run).passed
    pads = tensor(slim, "pads").copy()
    amounts = pads[[1, 5]]
    pads[[1, 5]] = amounts[::-1]
    wrong = replaced(slim, "pads", pads)
    assert amounts[0] != amounts[1]
    feeds = {"x": drawn((2, 3, 4, 4), 0)}
    assert compare(run(slim, feeds), run(wrong, feeds)).max_abs_diff == 0
    with pytest.raises(ProofError):
        prove_structure(index, mask, wrong, run)


def test_half_precision_is_proved_in_single_precision() -> None:
    half = {
        "W": drawn((8, 3, 3, 3), 0).astype(np.float16),
        "U": drawn((8, 8, 3, 3), 1).astype(np.float16),
        "V": drawn((2, 8, 1, 1), 2).astype(np.float16),
    }
    graph = build(
        """m (float16[N, 3, 6, 6] x) => (float16[N, 2, 6, 6] y) {
            c = Conv <pads = [1, 1, 1, 1]> (x, W)
            d = Conv <pads = [1, 1, 1, 1]> (c, U)
            y = Conv(d, V)
        }""",
        **half,
    )
    index = build_index(graph)
    mask = random_mask(index, 0)
    slim = cut(index, mask)
    assert {t.data_type for t in slim.graph.initializer} == {onnx.TensorProto.FLOAT16}
    proof = prove_cut(index, mask, slim, run)
    assert proof.passed
    assert proof.max_rel_diff < 1e-5
    axis, channels = index.reads[(1, 0)]
    index = replace(index, reads={**index.reads, (1, 0): (axis, np.roll(channels, 1))})
    with pytest.raises(ProofError, match=r"within 0\.0001 relative"):
        prove_structure(index, mask, slim, run)


def test_an_unknown_shape_upstream_does_not_stop_the_proof() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x, bool b) => (float[N, 2] y) {
            q = If (b) <
                then_branch = t () => (float[N, 3, 4, 4] a) { a = Relu(x) },
                else_branch = e () => (float[N, 3, K, 4] a) { a = Concat <axis = 2> (x, x) }
            >
            c = Conv(q, W)
            r = Relu(c)
            d = Conv(r, V)
            g = GlobalAveragePool(d)
            f = Flatten(g)
            h = Gemm(f, G)
            y = Gemm(h, H)
        }""",
        W=(6, 3, 1, 1),
        V=(5, 6, 1, 1),
        G=(5, 4),
        H=(4, 2),
    )
    assert "r" not in graph.shapes
    index = build_index(graph)
    assert [g.name for g in index.groups] == ["Conv_1", "Gemm_6"]
    mask = random_mask(index, 0)
    assert prove_cut(index, mask, cut(index, mask), run).passed


def test_the_masked_original_is_the_original_where_all_is_kept(graph: ModelGraph, index: GroupIndex) -> None:
    made = masked_original(index, np.ones(8, dtype=bool), {})
    feeds = {"x": drawn((2, 3, 8, 8), 0)}
    assert compare(run(graph.proto, feeds), run(made, feeds)).max_abs_diff == 0
    assert from_proto(made).shapes["y"] == (1, 4)


def a(*values: float, dtype: type = np.float32) -> Array:
    return np.array(values, dtype=dtype)


@pytest.mark.parametrize(
    ("expected", "got", "absolute", "relative"),
    [
        (a(1, 2, 4), a(1, 2, 4), 0.0, 0.0),
        (a(1, 2, 4), a(1, 2, 3), 1.0, 0.25),
        (a(0, 0), a(0, 1e-7), 1e-7, 0.1),
        (a(1e-5, 0), a(3e-5, 0), 2e-5, 2.0),
        (a(1, np.nan), a(1, np.nan), 0.0, 0.0),
        (a(1, np.inf), a(1, np.inf), 0.0, 0.0),
        (a(1, np.inf), a(1, -np.inf), np.inf, np.inf),
        (a(1, 2), a(1, np.nan), np.inf, np.inf),
        (a(1, np.nan), a(1, 2), np.inf, np.inf),
        (a(1, 2), a(1, 2, 3), np.inf, np.inf),
        (a(), a(), 0.0, 0.0),
        (a(3, 4, dtype=np.int64), a(3, 8, dtype=np.int64), 4.0, 1.0),
        (a(250, 1, dtype=np.uint8), a(0, 1, dtype=np.uint8), 250.0, 1.0),
        (a(1, 0, dtype=np.bool_), a(1, 1, dtype=np.bool_), 1.0, 1.0),
    ],
)
def test_differences(expected: Array, got: Array, absolute: float, relative: float) -> None:
    found = compare([a(1), expected], [a(1), got])
    assert found.max_abs_diff == pytest.approx(absolute)
    assert found.max_rel_diff == pytest.approx(relative)
    assert found.passed is (relative == 0)


def test_another_number_of_outputs_is_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        compare([a(1), a(2)], [a(1)])


def test_the_tolerance_is_met_at_its_bound_and_not_beyond() -> None:
    assert compare([a(1, dtype=np.float64)], [a(1 + 0.99 * TOLERANCE, dtype=np.float64)]).passed
    assert not compare([a(1, dtype=np.float64)], [a(1 + 1.01 * TOLERANCE, dtype=np.float64)]).passed


def test_a_wrong_cut_shows_in_small_outputs_too() -> None:
    graph = build(
        "m (float[N, 3] x) => (float[N, 2] y) { h = MatMul(x, A) r = Relu(h) g = MatMul(r, B) y = Mul(g, k) }",
        A=(3, 6),
        B=(6, 2),
        k=np.array(1e-5, np.float32),
    )
    index = build_index(graph)
    mask = np.arange(6) < 3
    slim = cut(index, mask)
    assert prove_cut(index, mask, slim, run).passed
    axis, channels = index.reads[(2, 0)]
    index = replace(index, reads={**index.reads, (2, 0): (axis, np.roll(channels, 1))})
    with pytest.raises(ProofError, match="must equal the masked original"):
        prove_cut(index, mask, slim, run)


def test_a_shuffle_that_was_read_wrongly_is_noticed() -> None:
    graph = build(
        """m (float[N, 6, 4, 4] x) => (float[N, 2, 4, 4] y) {
            c = Conv(x, W) r = Reshape(c, a) t = Transpose <perm = [0, 2, 1, 3, 4]> (r) s = Reshape(t, b) y = Conv(s, V)
        }""",
        W=(6, 6, 1, 1),
        V=(2, 6, 1, 1),
        a=[0, 2, 3, 4, 4],
        b=[0, 6, 4, 4],
    )
    assert graph.written is not None
    feeds = random_feeds(graph)
    check_runs(graph, feeds, run)
    entries = graph.constants["s.entries"]
    wrong = from_proto(apply_edit(graph, Edit({(1, 1): np.roll(entries, 1)})))
    with pytest.raises(ProofError, match="must compute the same after it was read"):
        check_runs(replace(wrong, written=graph.written), feeds, run)


# What guards the proof itself.

OPEN = """m (float[N, 3, H, W] x) => (float[N, 4] y) {
    c = Conv <pads = [1, 1, 1, 1]> (x, w)
    r = Relu(c)
    g = ReduceMean <keepdims = 0> (r, axes)
    h = Relu(g)
    y = MatMul(h, v)
}"""


def test_a_cut_that_is_wrong_at_other_sizes_only_fails() -> None:
    """The wrong model multiplies by height / 224, the height that it was read with."""
    graph = build(OPEN, opset=18, w=(8, 3, 3, 3), v=(8, 4), axes=[2, 3])
    assert graph.shapes["x"][2] == 224
    index = build_index(graph)
    mask = np.arange(8) < 5
    right = cut(index, mask)
    assert prove_structure(index, mask, right, run).passed
    wrong = ModelProto()
    wrong.CopyFrom(right)
    node, constant = onnx.helper.make_node, numpy_helper.from_array
    wrong.graph.initializer.append(constant(np.float32(224), "height"))
    at = next(i for i, n in enumerate(wrong.graph.node) if n.output[0] == "h")
    wrong.graph.node[at].output[0] = "hr"
    for i, extra in enumerate((
        node("Shape", ["r"], ["rs"], start=2, end=3), node("Cast", ["rs"], ["rf"], to=1),
        node("Div", ["rf", "height"], ["share"]), node("Mul", ["hr", "share"], ["h"]),
    )):  # fmt: skip
        wrong.graph.node.insert(at + 1 + i, extra)
    feeds = random_feeds(graph)
    assert compare(run(right, feeds), run(wrong, feeds)).passed
    with pytest.raises(ProofError, match="must equal the masked original"):
        prove_structure(index, mask, wrong, run)


def test_what_is_forgiven_as_rounding_has_a_cap() -> None:
    """An output that jumps when the inputs move in their last bits must not hide a wrong cut beside it."""
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 3, 4, 4] y) {
            o = Slice(x, zero, one, one)
            g = Mul(o, gain)  s = Sin(g)  n = Mul(s, small)
            c = Conv(x, w)  r = Relu(c)  t = Mul(r, tiny)
            a = Add(t, n)
            y = Conv(a, v)
        }""",
        gain=np.float32(1e5), small=np.float32(1e-3), tiny=np.float32(1e-5), w=(8, 3, 1, 1), v=(3, 8, 1, 1),
        zero=[0], one=[1],
    )  # fmt: skip
    index = build_index(graph)
    mask = np.arange(8) < 5
    slim = cut(index, mask)
    feeds = random_feeds(graph, batch=2)
    moved = {"x": feeds["x"] * np.float32(1 + 1e-6)}
    assert compare(run(slim, feeds), run(slim, moved)).max_abs_diff > 1e-4
    assert prove_cut(index, mask, slim, run).passed
    next(n for n in slim.graph.node if n.op_type == "Relu").op_type = "Neg"
    with pytest.raises(ProofError, match="must equal the masked original"):
        prove_structure(index, mask, slim, run)


MASKED = """m (float[N, 3, 4, 4] x, {kind}[N, 1, 4, 4] mask) => (float[N, 2, 4, 4] y) {{
    f = Cast <to = 1> (mask)
    u = Sub(f, one) v = Abs(u) w = Neg(v) g = Sqrt(w) l = ReduceSum(g)
    c = Conv(x, W) d = Conv(x, U) j = Concat <axis = 1> (c, d) r = Relu(j)
    s = Add(r, l) t = Mul(s, f)
    y = Conv(t, V)
}}"""


@pytest.mark.parametrize("kind", ["float", "double"])
def test_a_mask_that_random_numbers_turn_into_nan_is_filled_otherwise(kind: str) -> None:
    graph = build(
        MASKED.format(kind=kind),
        W=(6, 3, 1, 1),
        U=(6, 3, 1, 1),
        V=np.ones((2, 12, 1, 1), np.float32),
        one=np.float32(1),
    )
    found = filled(graph, run)
    assert found.fills == {"mask": "ones"}
    index = build_index(graph)
    mask = np.arange(12) % 3 > 0
    slim = cut(index, mask)
    assert prove_cut(index, mask, slim, run).passed
    joined = next(n for n in slim.graph.node if n.op_type == "Concat")
    joined.op_type, joined.input[:] = "Concat", [joined.input[0], joined.input[0]]
    with pytest.raises(ProofError, match="must equal the masked original"):
        prove_structure(index, mask, slim, run)


def test_inputs_that_nothing_keeps_finite_are_named() -> None:
    text = "m (float[N, 2] a, float[N, 2] b) => (float[N, 2] y) { c = Sub(a, a) d = Div(c, c) y = Add(d, b) }"
    graph = build(text)
    assert filled(graph, run).fills == {}
    with pytest.raises(ModelError, match=r"must hold a finite number, got none with .* as inputs 'a', 'b'"):
        check_runs(graph, random_feeds(graph), run)


def test_integer_inputs_are_fed_what_shows_a_wrong_cut() -> None:
    graph = build(
        """m (uint8[1, 3, 8, 8] x) => (float[1, 4, 8, 8] y) {
            f = Cast <to = 1> (x)
            a = Conv(f, W) b = Conv(f, U) c = Concat <axis = 1> (a, b) d = Relu(c) y = Conv(d, V)
        }""",
        W=(8, 3, 1, 1), U=(8, 3, 1, 1), V=(4, 16, 1, 1),
    )  # fmt: skip
    index = build_index(graph)
    mask = np.ones(16, dtype=bool)
    mask[[1, 10]] = False
    slim = cut(index, mask)
    assert prove_cut(index, mask, slim, run).passed
    joined = next(n for n in slim.graph.node if n.op_type == "Concat")
    joined.input[:] = list(joined.input)[::-1]
    with pytest.raises(ProofError, match="must equal the masked original"):
        prove_structure(index, mask, slim, run)


def test_quantized_weights_are_compared_as_the_numbers_they_stand_for() -> None:
    """ONNX Runtime multiplies by quantized weights in blocks of the inner axis, which a cut shifts."""
    rng = np.random.default_rng(0)
    graph = build(
        """m (float[1, 3, 16, 16] x) => (float[1, 256, 32] y) {
            xq = QuantizeLinear(x, s, z) xd = DequantizeLinear(xq, s, z)
            a = Conv <pads = [1, 1, 1, 1]> (xd, W) b = Conv <pads = [1, 1, 1, 1]> (xd, U)
            r = Concat <axis = 1> (a, b)
            rq = QuantizeLinear(r, s, z) rd = DequantizeLinear(rq, s, z)
            f = Reshape(rd, shape) t = Transpose <perm = [0, 2, 1]> (f)
            vd = DequantizeLinear(v, vs, z) y = MatMul(t, vd)
        }""",
        W=(32, 3, 3, 3), U=(32, 3, 3, 3), v=rng.integers(-99, 99, (64, 32)).astype(np.int8), vs=np.float32(0.01),
        s=np.float32(0.03), z=np.int8(0), shape=[1, -1, 256], opset=13,
    )  # fmt: skip
    index = build_index(graph)
    mask = np.ones(64, dtype=bool)
    mask[19:32] = mask[51:] = False
    slim = cut(index, mask)
    proof = prove_cut(index, mask, slim, run)
    assert proof.max_rel_diff < 1e-5


def test_the_standard_domain_may_be_spelled_out() -> None:
    graph = build('<ir_version: 8, opset_import: ["ai.onnx" : 17]> ' + SHORTCUT, **CONSTANTS)
    index = build_index(graph)
    mask = random_mask(index, 0)
    assert prove_structure(index, mask, cut(index, mask), run).passed


PLACES = {
    "rows of a table": """m (int64[N, 6] i) => (float[N, 3] y) {
        e = Gather(table, i) t = Transpose <perm = [0, 2, 1]> (e) p = ReduceMean <axes = [2], keepdims = 0> (t)
        a = MatMul(p, w) b = MatMul(p, u) j = Concat <axis = 1> (a, b) y = MatMul(j, v)
    }""",
    "lengths": """m (float[6, N, 8] x, int32[N] l) => (float[N, 3] y) {
        h, hn = GRU <hidden_size = 4> (x, W, R, , l) q = Squeeze(hn, zero)
        a = MatMul(q, wq) b = MatMul(q, uq) j = Concat <axis = 1> (a, b) y = MatMul(j, v)
    }""",
    "a count": """m (float[N, 8] x, int64[1] k) => (float[N, A] y) {
        a = MatMul(x, w) b = MatMul(x, u) j = Concat <axis = 1> (a, b) z = MatMul(j, v) y, i = TopK(z, k)
    }""",
}


@pytest.mark.parametrize("name", PLACES)
def test_places_lengths_and_counts_are_such_that_a_wrong_cut_shows(name: str) -> None:
    """The first row of the table is zero, which is what a padding index reads."""
    table = drawn((9, 8), 1)
    table[0] = 0
    shapes = {"w": (8, 5), "u": (8, 5), "v": (10, 3), "W": (1, 12, 8), "R": (1, 12, 4), "wq": (4, 5), "uq": (4, 5)}
    wanted = {n: s for n, s in shapes.items() if f" {n}" in PLACES[name]}
    extra = {"table": table} if "table" in PLACES[name] else {"zero": [0]}
    graph = build(PLACES[name], **wanted, **extra)
    index = build_index(graph)
    mask = np.ones(index.n_channels, dtype=bool)
    group = next(g for g in index.groups if g.n_channels == 5)
    mask[[group.start + 1, group.start + 3]] = False
    slim = cut(index, mask)
    assert prove_cut(index, mask, slim, run).passed
    joined = next(n for n in slim.graph.node if n.op_type == "Concat")
    joined.input[:] = list(joined.input)[::-1]
    with pytest.raises(ProofError):
        prove_structure(index, mask, slim, run)


@pytest.mark.parametrize("opset", [9, 17])
def test_a_removed_channel_that_is_infinite_does_not_fail_a_right_cut(opset: int) -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            c = Conv(x, W, b) r = Relu(c) l = Reciprocal(r) y = Conv(l, V)
        }""",
        opset=opset, W=(4, 3, 1, 1), b=np.array([9, 0, 9, 9], np.float32), V=(2, 4, 1, 1),
    )  # fmt: skip
    index = build_index(graph)
    mask = np.array([True, False, True, True])
    assert prove_cut(index, mask, cut(index, mask), run).passed


def test_a_size_at_which_samples_mix_is_no_witness() -> None:
    """A Reshape to (-1, C * 16 * 16) takes a quarter of an image of 32 x 32 for a sample."""
    graph = from_proto(
        proto(
            """m (float[N, 3, H, W] x) => (float[M, 4] y) {
                c = Conv <pads = [1, 1, 1, 1]> (x, W0) r = Relu(c) f = Reshape(r, flat) y = MatMul(f, V)
            }""",
            W0=(8, 3, 3, 3), V=(8 * 256, 4), flat=[-1, 8 * 256],
        ),
        input_shapes={"x": (1, 3, 16, 16)},
    )  # fmt: skip
    index = build_index(graph)
    assert index.groups
    mask = np.arange(8) < 5
    assert prove_cut(index, mask, cut(index, mask), run).passed


def test_an_integer_that_chooses_is_one_or_zero_where_the_model_runs_with_no_other() -> None:
    graph = build(
        """m (float[N, 3] x, int64 rate) => (float[A, B] y) {
            one = Constant <value_int = 1> () e = Equal(rate, one) h = MatMul(x, W) r = Relu(h)
            y = If (e) <then_branch = t () => (float[A, B] a) { a = MatMul(r, V) },
                        else_branch = f () => (float[A, B] b) { b = Reshape(r, sevens) }>
        }""",
        W=(3, 8), V=(8, 2), sevens=[7, -1],
    )  # fmt: skip
    assert filled(graph, run).fills == {"rate": "ones"}
