from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bocr_onnx.graph import Array, from_proto, infer
from bocr_onnx.groups import build_index
from bocr_onnx.slimming import changed_operands, cut, cut_edit, cut_operand, output_axis, prove_cut, widen
from tests.oracle import build, check, drawn, proto, run

TEXT = """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
    c = Conv(x, W, b)
    r = Relu(c)
    d = Conv <pads = [1, 1, 1, 1]> (r, U)
    s = Relu(d)
    y = Conv(s, V)
}"""
CONSTANTS = {"W": (6, 3, 1, 1), "b": (6,), "U": (5, 6, 3, 3), "V": (2, 5, 1, 1)}
GRAPH = build(TEXT, **CONSTANTS)
INDEX = build_index(GRAPH)
MASK = np.array([1, 0, 1, 1, 0, 1, 0, 1, 1, 1, 0], dtype=bool)
FIRST, SECOND = [0, 2, 3, 5], [1, 2, 3]


def stored(model: onnx.ModelProto) -> dict[str, Array]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def test_a_constant_loses_the_removed_channels_along_every_axis() -> None:
    got = cut_operand(INDEX, MASK, (2, 1))
    assert np.array_equal(got, GRAPH.constants["U"][SECOND][:, FIRST])
    assert np.array_equal(cut_operand(INDEX, MASK, (0, 2)), GRAPH.constants["b"][FIRST])


def test_the_slim_model_holds_the_kept_slices_of_the_original() -> None:
    expected = {
        "W": GRAPH.constants["W"][FIRST],
        "b": GRAPH.constants["b"][FIRST],
        "U": GRAPH.constants["U"][SECOND][:, FIRST],
        "V": GRAPH.constants["V"][:, SECOND],
    }
    got = stored(cut(INDEX, MASK))
    assert list(got) == list(expected)
    assert all(np.array_equal(got[name], expected[name]) for name in expected)


def test_nothing_is_changed_where_everything_is_kept() -> None:
    edit = cut_edit(INDEX, np.ones(11, dtype=bool))
    assert (edit.operands, edit.attributes, edit.widths) == ({}, {}, {})
    assert cut(INDEX, np.ones(11, dtype=bool)) == GRAPH.proto


def test_negative_window_bounds_stay_where_everything_is_kept() -> None:
    graph = build(
        "m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) { c = Conv(x, W) s = Slice(c, f, t, a) y = Conv(s, V) }",
        f=[-4],
        t=[-1],
        a=[1],
        W=(8, 3, 1, 1),
        V=(2, 3, 1, 1),
    )
    index = check(graph)
    assert cut(index, np.ones(index.n_channels, dtype=bool)) == graph.proto


def test_a_model_without_groups_is_returned_as_it_is() -> None:
    graph = build("m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) { y = Conv(x, V) }", V=(2, 3, 1, 1))
    index = build_index(graph)
    assert index.n_channels == 0
    assert cut(index, np.zeros(0, dtype=bool)) == graph.proto


def test_given_weights_take_the_place_of_the_cut_ones() -> None:
    U, bias = drawn((3, 4, 3, 3), 9), drawn((3,), 9)
    slim = cut(INDEX, MASK, {(2, 1): U, (2, 2): bias})
    assert np.array_equal(stored(slim)["U"], U)
    assert np.array_equal(stored(slim)[slim.graph.node[2].input[2]], bias)
    found = changed_operands(INDEX, MASK, from_proto(slim))
    assert set(found) == {(2, 1), (2, 2)}
    assert np.array_equal(found[(2, 1)], U)
    assert prove_cut(INDEX, MASK, slim, run, weights=found).passed


def test_what_is_wide_again_has_the_originals_values_in_the_removed_places() -> None:
    U, W, bias = drawn((3, 4, 3, 3), 9), drawn((4, 3, 1, 1), 9), drawn((3,), 9)
    wide = widen(INDEX, MASK, {(2, 1): U, (0, 1): W, (2, 2): bias})
    assert np.array_equal(wide[(2, 1)][np.ix_(SECOND, FIRST)], U)
    removed = np.ones((5, 6), dtype=bool)
    removed[np.ix_(SECOND, FIRST)] = False
    assert np.array_equal(wide[(2, 1)][removed], GRAPH.constants["U"][removed])
    assert np.array_equal(wide[(0, 1)][FIRST], W)
    assert np.array_equal(wide[(0, 1)][[1, 4]], GRAPH.constants["W"][[1, 4]])
    assert wide[(2, 2)].tolist() == [0, *bias.tolist(), 0]
    assert np.array_equal(GRAPH.constants["U"], build(TEXT, **CONSTANTS).constants["U"])


def test_an_added_bias_of_an_uncut_layer_keeps_its_shape() -> None:
    wide = widen(INDEX, MASK, {(4, 2): drawn((2,), 1)})
    assert np.array_equal(wide[(4, 2)], drawn((2,), 1))


def test_widening_a_scalar() -> None:
    graph = build(
        "m (float[N, 3] x) => (float[N, 2] y) { a = MatMul(x, A) p = Mul(a, k) y = MatMul(p, B) }",
        A=(3, 6),
        B=(6, 2),
        k=np.array(2, np.float32),
    )
    mask = np.arange(6) < 4
    wide = widen(build_index(graph), mask, {(1, 1): np.array(3, np.float32)})
    assert wide[(1, 1)].shape == ()
    assert wide[(1, 1)] == 3


def test_the_cut_and_its_way_back_are_one_another() -> None:
    mask = MASK
    slim = {at: cut_operand(INDEX, mask, at) for at in INDEX.slices}
    for at, array in widen(INDEX, mask, slim).items():
        assert np.array_equal(array, GRAPH.operand(at))


def test_a_plain_cut_has_changed_nothing_in_a_file_of_any_order() -> None:
    slim = cut(INDEX, MASK)
    tensors = list(slim.graph.initializer)[::-1]
    shuffled = onnx.ModelProto()
    shuffled.CopyFrom(slim)
    del shuffled.graph.initializer[:]
    shuffled.graph.initializer.extend(tensors)
    assert changed_operands(INDEX, MASK, from_proto(shuffled)) == {}


def test_one_changed_number_is_found() -> None:
    slim = cut(INDEX, MASK)
    array = stored(slim)["V"].copy()
    array[1, 2] += 1e-6
    slim.graph.initializer[3].CopyFrom(numpy_helper.from_array(array, "V"))
    assert list(changed_operands(INDEX, MASK, from_proto(slim))) == [(4, 1)]


def test_weights_that_are_not_numbers_are_not_taken_for_changed() -> None:
    W = drawn((6, 3, 1, 1), 0)
    W[0, 0] = np.nan
    graph = build(TEXT, **{**CONSTANTS, "W": W})
    index = build_index(graph)
    assert changed_operands(index, MASK, from_proto(cut(index, MASK))) == {}


@pytest.mark.parametrize(
    ("node", "axis"),
    [
        ("Conv(x, W)", 0),
        ("ConvTranspose(x, W)", 1),
        ("MatMul(x, W)", 1),
        ("Gemm(x, W)", 1),
        ("Gemm <transB = 1> (x, W)", 0),
    ],
)
def test_the_axis_of_a_weight_that_counts_its_outputs(node: str, axis: int) -> None:
    shape = (4, 4, 1, 1) if "Conv" in node else (4, 4)
    rank = "N, 4, 4, 4" if "Conv" in node else "N, 4"
    graph = from_proto(proto(f"m (float[{rank}] x) => (float[{rank}] y) {{ y = {node} }}", W=shape))
    assert output_axis(graph, 0) == axis


def test_what_only_the_slim_model_is_small_enough_to_fold_is_no_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that the file computes are folded up to a number of elements, over which the original is."""
    monkeypatch.setattr(infer, "MAX_ALL_FOLDED", 8 * 16)
    graph = build(
        """m (float[N, 8] x) => (float[N, 3] y) {
            h = MatMul(x, W) r = Relu(h)
            U = ConstantOfShape <value = float[1] {0.5}> (u) s = MatMul(r, U) t = Relu(s)
            one = ConstantOfShape <value = float[1] {0.1}> (v) V = Mul(one, one) y = MatMul(t, V)
        }""",
        W=(8, 16), u=[16, 9], v=[9, 3],
    )  # fmt: skip
    assert graph.constant("V") is None
    index = build_index(graph)
    mask = np.arange(index.n_channels) < 4
    slim = cut(index, mask)
    assert from_proto(slim).constant("V") is not None
    assert changed_operands(index, mask, from_proto(slim)) == {}
    assert prove_cut(index, mask, slim, run).passed
