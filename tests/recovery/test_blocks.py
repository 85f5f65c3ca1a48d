"""Grouped and transposed convolutions: what they read, as matrices, and what a fit gives back."""

from __future__ import annotations

import numpy as np
import pytest

from bocr_onnx.graph import Array, ModelGraph, with_outputs
from bocr_onnx.groups import build_index
from bocr_onnx.recovery import calibrate, find_affines
from bocr_onnx.recovery.patches import from_matrix, kept_columns, kept_outputs, to_matrix
from bocr_onnx.recovery.windows import draw_positions, input_rows, output_rows, output_shape
from bocr_onnx.runtime import predict
from bocr_onnx.runtime.session import run_once
from bocr_onnx.slimming import cut, cut_operand
from bocr_onnx.tasks import distortion
from tests.oracle import build

OPERATORS = {
    "grouped": ("Conv <group = 4, pads = [1, 1, 1, 1]>", (8, 3, 3, 3)),
    "depthwise with a multiplier": ("Conv <group = 12, pads = [1, 0, 1, 0]>", (24, 1, 3, 1)),
    "transposed": ("ConvTranspose <strides = [2, 2]>", (12, 8, 2, 2)),
    "transposed, overlapping": ("ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1]>", (12, 8, 4, 4)),
    "transposed, cropped": ("ConvTranspose <strides = [2, 1], pads = [3, 2, 1, 2]>", (12, 8, 3, 2)),
    "transposed, odd": (
        "ConvTranspose <strides = [3, 2], pads = [0, 1, 1, 0], output_padding = [2, 1]>",
        (12, 8, 3, 2),
    ),
    "transposed, dilated": ("ConvTranspose <strides = [2, 2], dilations = [2, 3], pads = [1, 0, 0, 2]>", (12, 8, 3, 2)),
    "transposed and grouped": ("ConvTranspose <group = 3, strides = [2, 2], pads = [1, 1, 1, 1]>", (12, 2, 4, 4)),
    "transposed and depthwise": ("ConvTranspose <group = 12, strides = [2, 2]>", (12, 2, 2, 2)),
    "transposed, no padding": ('ConvTranspose <auto_pad = "VALID", strides = [2, 2]>', (12, 8, 3, 3)),
}
GROUPED = [name for name in OPERATORS if "depthwise" not in name]


def drawn(shape: tuple[int, ...], seed: int) -> Array:
    return np.random.default_rng(seed).normal(0, 0.3, shape).astype(np.float32)


def images(n: int = 80) -> Array:
    return np.random.default_rng(7).standard_normal((n, 3, 7, 6)).astype(np.float32)


def model(name: str, stem: Array | None = None) -> ModelGraph:
    """Returns a stem of twelve channels, the operator with a bias, and a convolution of what comes out."""
    operator, shape = OPERATORS[name]
    group = int(operator.partition("group = ")[2].partition(",")[0].partition(">")[0] or 1)
    n_outputs = shape[1] * group if operator.startswith("ConvTranspose") else shape[0]
    text = f"""m (float[N, 3, 7, 6] x) => (float[N, 5, H, W] y) {{
        h = Conv <pads = [1, 1, 1, 1]> (x, a)  r = Relu(h)  z = {operator} (r, w, b)
        q = Relu(z)  y = Conv(q, l) }}"""
    return build(text, a=drawn((12, 3, 3, 3), 0) if stem is None else stem, w=drawn(shape, 1),
                 b=drawn((n_outputs,), 2), l=drawn((5, n_outputs, 1, 1), 3))  # fmt: skip


@pytest.mark.parametrize("name", OPERATORS)
def test_rows_times_matrix_is_the_operator(name: str) -> None:
    graph = model(name)
    affine = next(a for a in find_affines(build_index(graph)) if a.node.index == 2)
    _, x, y = run_once(with_outputs(graph.proto, ["r", "z"]), {"x": images(6)})
    weight = graph.operand(affine.weight)
    assert weight is not None
    assert output_shape(affine.node, weight.shape[2:], x)[2:] == y.shape[2:]
    at = draw_positions(y.shape, affine.node.op, 10**6, np.random.default_rng(0))
    assert len(at.images) == len(y) * y.shape[2] * y.shape[3]
    rows = (
        input_rows(affine.node, weight.shape[2:], x, at).astype(np.float64).reshape(len(at.images), affine.blocks, -1)
    )
    matrix = to_matrix(affine, graph, weight)
    assert matrix.shape == (y.shape[1], affine.n_columns)
    got = np.einsum("ngc,goc->ngo", rows, matrix.reshape(affine.blocks, -1, affine.n_columns)).reshape(len(rows), -1)
    np.testing.assert_allclose(got + graph.operand((2, 2)), output_rows(affine.node, y, at), atol=1e-4)
    np.testing.assert_array_equal(from_matrix(affine, graph, matrix), weight)


@pytest.mark.parametrize("name", OPERATORS)
def test_the_matrix_of_what_is_kept_is_that_of_the_slim_weight(name: str) -> None:
    graph = model(name)
    index = build_index(graph)
    affine = next(a for a in find_affines(index) if a.node.index == 2)
    weight = graph.operand(affine.weight)
    assert weight is not None
    mask = np.ones(index.n_channels, dtype=bool)
    for group in index.groups:
        mask[group.start + np.arange(group.n_channels // 2)] = False
    slim = cut_operand(index, mask, affine.weight)
    matrix = to_matrix(affine, graph, weight)[
        np.ix_(kept_outputs(affine, index, mask), kept_columns(affine, index, mask))
    ]
    np.testing.assert_array_equal(to_matrix(affine, graph, slim), matrix)
    np.testing.assert_array_equal(from_matrix(affine, graph, matrix), slim)
    assert affine.n_blocks(len(matrix)) == (affine.blocks // 2 if affine.depthwise else affine.blocks)


@pytest.mark.parametrize("recovery", ["oneshot", "sequential"])
@pytest.mark.parametrize("name", GROUPED)
def test_what_others_tell_is_not_lost(name: str, recovery: str) -> None:
    """Half of the channels that each block reads are copies of the other half."""
    operator, _ = OPERATORS[name]
    blocks = int(operator.partition("group = ")[2].partition(",")[0].partition(">")[0] or 1)
    each = 12 // blocks
    stem = np.abs(drawn((blocks, each, 3, 3, 3), 0))
    half = each // 2
    stem[:, each - half :] = stem[:, :half]
    graph = model(name, stem.reshape(12, 3, 3, 3))
    calibration = calibrate(build_index(graph), np.abs(images()))
    index, seen = calibration.index, np.abs(images())
    group = next(g for g in index.groups if g.n_channels == each)
    widths = np.array([each - half if g is group else g.n_channels for g in index.groups])
    mask = calibration.mask(widths)
    weights = calibration.fit(mask) if recovery == "oneshot" else calibration.recover(mask, recovery)
    reference = predict(graph, graph.proto, seen)
    plain, fitted = (distortion(predict(graph, cut(index, mask, own), seen), reference) for own in ({}, weights))
    assert fitted < (0.03 if recovery == "oneshot" else 3e-3) * plain
    assert {(2, 1), (2, 2)} <= set(weights)


@pytest.mark.parametrize("name", OPERATORS)
def test_a_sequential_fit_of_all_halves_is_nearer_than_the_plain_cut(name: str) -> None:
    graph = model(name)
    calibration = calibrate(build_index(graph), images(200))
    mask = calibration.mask(np.array([g.n_channels // 2 for g in calibration.index.groups]))
    reference, unseen = predict(graph, graph.proto, images(300)[200:]), images(300)[200:]
    plain, fitted = (
        distortion(predict(graph, cut(calibration.index, mask, calibration.recover(mask, how)), unseen), reference)
        for how in ("none", "sequential")
    )
    assert fitted < 0.9 * plain


def test_a_shape_that_is_asked_for_leaves_a_transposed_convolution_as_it_is() -> None:
    graph = build(
        "m (float[N, 3, 5, 5] x) => (float[N, 4, 10, 10] y) "
        "{ h = Conv(x, a) r = Relu(h) y = ConvTranspose <output_shape = [10, 10], strides = [2, 2]> (r, w) }",
        a=(8, 3, 1, 1), w=(8, 4, 3, 3),
    )  # fmt: skip
    assert [a.node.op for a in find_affines(build_index(graph))] == ["Conv"]


MLP = """m (float[N, 7, 6] x) => (float[N, 7, 6] y) {
    a = MatMul(x, w0)  ab = Add(a, b0)  r = Relu(ab)  c = MatMul(r, w1)  cb = Add(b1, c)  s = Add(cb, x)
    d = MatMul(s, w2)  db = Add(d, b2)  t = Relu(db)  e = MatMul(t, w3)  eb = Add(e, b3)  y = Add(eb, s) }"""


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("recovery", ["oneshot", "sequential"])
def test_a_bias_that_is_added_after_a_product_is_fitted_with_it(recovery: str, constant: bool) -> None:
    """Half of the hidden channels are copies, or constants that the bias can take over: nothing is lost with them."""
    w0, w2 = drawn((6, 8), 0), drawn((6, 8), 2)
    w0[:, 4:], w2[:, 4:] = (0, 0) if constant else (w0[:, :4], w2[:, :4])
    b0, b2 = np.tile(drawn((4,), 4), 2), np.tile(drawn((4,), 5), 2)
    if constant:
        b0[4:], b2[4:] = 3, 2
    graph = build(MLP, w0=w0, b0=b0, w1=drawn((8, 6), 1), b1=drawn((6,), 6), w2=w2, b2=b2, w3=drawn((8, 6), 3),
                  b3=drawn((6,), 7))  # fmt: skip
    seen = 3 * np.random.default_rng(7).standard_normal((120, 7, 6)).astype(np.float32)
    calibration = calibrate(build_index(graph), seen)
    index = calibration.index
    mask = calibration.mask(np.array([g.n_channels // 2 for g in index.groups]))
    weights = calibration.fit(mask) if recovery == "oneshot" else calibration.recover(mask, recovery)
    reference = predict(graph, graph.proto, seen)
    plain, fitted = (distortion(predict(graph, cut(index, mask, own), seen), reference) for own in ({}, weights))
    assert {(3, 1), (4, 0), (9, 1), (10, 1)} <= set(weights)
    assert fitted < 1e-3 * plain


def test_a_constant_that_is_not_a_bias_is_left_alone() -> None:
    for after in ("y = Add(c, k)", "q = Add(c, b1) y = Mul(q, b1)", "q = Relu(c) y = Add(q, b1)"):
        text = (
            f"m (float[N, 7, 6] x) => (float[N, 7, 6] y) {{ a = MatMul(x, w0) r = Relu(a) c = MatMul(r, w1) {after} }}"
        )
        graph = build(text, w0=(6, 8), w1=(8, 6), b1=(6,), k=(7, 6))
        assert [affine.bias for affine in find_affines(build_index(graph))] == [None, None]
