"""Recovery: closed forms against brute force, and what each step promises."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bocr_onnx.graph import from_proto, with_outputs
from bocr_onnx.groups import build_index
from bocr_onnx.recovery import calibrate, sequential, weigh_curves
from bocr_onnx.recovery.moments import collect_moments
from bocr_onnx.recovery.oneshot import fit_targets, recover_oneshot
from bocr_onnx.recovery.patches import find_affines, to_matrix
from bocr_onnx.recovery.sensitivity import scan_sensitivity
from bocr_onnx.recovery.sequential import peak_bytes, recover_sequential
from bocr_onnx.recovery.statistics import output_statistics
from bocr_onnx.recovery.windows import draw_positions, input_rows
from bocr_onnx.runtime import predict, run_once
from bocr_onnx.slimming import cut, prove_structure
from bocr_onnx.tasks import distortion

RESIDUAL = """
<ir_version: 8, opset_import: ["" : 17]>
residual (float[N, 3, 8, 8] x) => (float[N, 5] y) {
    s = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)
    s0 = Relu(s)
    h = Conv <pads = [1, 1, 1, 1]> (s0, w1, b1)
    h0 = Relu(h)
    r = Conv <pads = [1, 1, 1, 1]> (h0, w2)
    r0 = BatchNormalization(r, gamma, beta, mean, var)
    t = Add(r0, s0)
    t0 = Relu(t)
    d = Conv <group = 8, strides = [2, 2], pads = [1, 1, 1, 1]> (t0, wd)
    d0 = Relu(d)
    p = ReduceMean <axes = [2, 3], keepdims = 0> (d0)
    y = Gemm <transB = 1> (p, wl, bl)
}
"""
SHAPES = {
    "w0": (8, 3, 3, 3), "b0": (8,), "w1": (12, 8, 3, 3), "b1": (12,), "w2": (8, 12, 3, 3), "gamma": (8,),
    "beta": (8,), "mean": (8,), "var": (8,), "wd": (8, 1, 3, 3), "wl": (5, 8), "bl": (5,),
}  # fmt: skip


@pytest.fixture(scope="module")
def graph():
    rng = np.random.default_rng(3)
    proto = onnx.parser.parse_model(RESIDUAL)
    for name, shape in SHAPES.items():
        scale = 1.0 if len(shape) == 1 else 1.4 / np.sqrt(np.prod(shape[1:]))
        array = rng.normal(0, scale, shape)
        if name in ("var", "gamma"):
            array = np.abs(array) + 0.5
        proto.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    return from_proto(proto)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(4)
    return np.repeat(np.repeat(rng.normal(size=(120, 3, 4, 4)), 2, 2), 2, 3).astype(np.float32)


@pytest.fixture(scope="module")
def calibration(graph, images):
    return calibrate(build_index(graph), images, seed=1)


def outputs_of(calibration, mask, weights, images):
    graph = calibration.graph
    return predict(graph, cut(calibration.index, mask, weights), images)


def halved(calibration):
    return np.array([max(1, g.n_channels // 2) for g in calibration.index.groups])


def products(affine, rows, matrix):
    blocks = rows.reshape(len(rows), affine.blocks, -1)
    return np.einsum("ngc,goc->ngo", blocks, matrix.reshape(affine.blocks, -1, affine.n_columns)).reshape(len(rows), -1)


@pytest.mark.parametrize("node", [0, 2, 4, 8, 11])
def test_patches_times_matrix_is_the_operator(graph, images, node):
    affine = next(a for a in find_affines(build_index(graph)) if a.node.index == node)
    x_name, y_name = affine.node.inputs[0], affine.node.outputs[0]
    names = [n for n in (x_name, y_name) if n not in (*graph.inputs, *graph.outputs)]
    found = dict(
        zip([*graph.outputs, *names], run_once(with_outputs(graph.proto, names), {"x": images[:4]}), strict=True)
    )
    x, y = found.get(x_name, images[:4]), found[y_name]
    weight = graph.operand(affine.weight)
    at = draw_positions(y.shape, affine.node.op, 40, np.random.default_rng(0))
    rows = input_rows(affine.node, weight.shape[2:], x, at).astype(np.float64)
    matrix = to_matrix(affine, graph, weight)
    got = products(affine, rows, matrix)
    bias = graph.operand((node, 2))
    got = got if bias is None else got + bias
    expected = y[(at.images, slice(None), *at.places)] if at.places else y[at.images]
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_positions_do_not_repeat_within_an_image():
    at = draw_positions((3, 7, 4, 4), "Conv", 30, np.random.default_rng(0))
    seen = set(zip(at.images.tolist(), at.places[0].tolist(), at.places[1].tolist(), strict=True))
    assert len(seen) == len(at.images) == 30


def test_moments_are_mean_and_covariance_of_all_patches(graph, images):
    affines = find_affines(build_index(graph))
    moments = collect_moments(graph, affines, images, n_rows=10**9)
    affine = next(a for a in affines if a.node.index == 2)
    x = run_once(with_outputs(graph.proto, ["s0"]), {"x": images})[1]
    at = draw_positions((len(x), 12, 8, 8), "Conv", 10**9, np.random.default_rng(0))
    rows = input_rows(affine.node, (3, 3), x, at).astype(np.float64)
    np.testing.assert_allclose(moments[2].mean[0], rows.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(moments[2].covariance[0], np.cov(rows.T, bias=True), atol=1e-3)


def test_oneshot_is_the_least_squares_fit(graph, images):
    index = build_index(graph)
    affines = find_affines(index)
    moments = collect_moments(graph, affines, images, n_rows=10**9)
    inner = next(g for g in index.groups if g.n_channels == 12)
    mask = np.ones(index.n_channels, dtype=bool)
    mask[inner.start + np.array([1, 4, 5])] = False
    weights = recover_oneshot(index, affines, moments, fit_targets(graph, affines, moments), mask)
    affine = next(a for a in affines if a.node.index == 4)
    x = run_once(with_outputs(graph.proto, ["h0"]), {"x": images})[1]
    at = draw_positions((len(x), 8, 8, 8), "Conv", 10**9, np.random.default_rng(0))
    kept = np.setdiff1d(np.arange(12), [1, 4, 5])
    rows = input_rows(affine.node, (3, 3), x, at).astype(np.float64)
    target = rows @ to_matrix(affine, graph, graph.operand((4, 1))).T
    slim = input_rows(affine.node, (3, 3), x[:, kept], at).astype(np.float64)
    best, *_ = np.linalg.lstsq(np.column_stack([slim, np.ones(len(slim))]), target, rcond=None)
    ideal = np.mean((np.column_stack([slim, np.ones(len(slim))]) @ best - target) ** 2)
    got = slim @ to_matrix(affine, graph, weights[(4, 1)]).T + weights[(4, 2)]
    assert np.mean((got - target) ** 2) <= 1.02 * ideal
    plain = slim @ to_matrix(affine, graph, graph.operand((4, 1))[:, kept]).T
    assert np.mean((plain - target) ** 2) > 1.2 * ideal


def test_statistics_by_arithmetic_are_those_of_the_outputs(graph, images):
    affines = find_affines(build_index(graph))
    found = output_statistics(graph, affines, collect_moments(graph, affines, images, n_rows=10**9))
    y = run_once(with_outputs(graph.proto, ["h"]), {"x": images})[1]
    np.testing.assert_allclose(found[2].mean, y.mean(axis=(0, 2, 3)), atol=1e-3)
    np.testing.assert_allclose(found[2].variance, y.var(axis=(0, 2, 3)), rtol=1e-2)
    assert 11 not in found, "a matrix product has no map to take statistics over"


def test_statistics_come_back(calibration, images):
    mask = calibration.mask(halved(calibration))
    weights = calibration.recover(mask, "oneshot")
    index = calibration.index
    slim = cut(index, mask, weights)
    y = run_once(with_outputs(slim, ["h"]), {"x": images})[1]
    kept = np.flatnonzero(mask[index.axes["h"][1]])
    goal = calibration.statistics[2]
    np.testing.assert_allclose(y.mean(axis=(0, 2, 3)), goal.mean[kept], atol=0.1)
    np.testing.assert_allclose(y.std(axis=(0, 2, 3)), np.sqrt(goal.variance[kept]), rtol=0.15)


def test_each_recovery_is_closer_to_the_original_than_the_one_before(calibration, images):
    mask = calibration.mask(halved(calibration))
    reference = predict(calibration.graph, calibration.graph.proto, images)
    errors = {
        name: distortion(outputs_of(calibration, mask, calibration.recover(mask, name), images), reference)
        for name in ("none", "oneshot", "sequential")
    }
    assert errors["sequential"] < errors["oneshot"] < errors["none"]


@pytest.mark.parametrize("recovery", ["none", "oneshot", "sequential"])
def test_recovered_models_pass_the_proof(calibration, recovery):
    mask = calibration.mask(halved(calibration))
    slim = cut(calibration.index, mask, calibration.recover(mask, recovery))
    assert prove_structure(calibration.index, mask, slim, run_once).passed


def test_nothing_cut_nothing_changed(calibration, images):
    mask = np.ones(calibration.index.n_channels, dtype=bool)
    assert recover_sequential(calibration.index, calibration.affines, mask, images) == {}


def test_memory_bounds_the_images(calibration, images, monkeypatch):
    """At the inner Relu three maps are alive: the stream with 8 channels, its input and its output with 12."""
    graph = calibration.graph
    assert peak_bytes(graph) == 4 * (8 + 12 + 12) * 64
    mask = calibration.mask(halved(calibration))
    monkeypatch.setattr(sequential, "CHUNK", 20)
    bounded = replace(calibration, memory_bytes=2 * peak_bytes(graph) * 60).recover(mask, "sequential")
    start = calibration.fit(mask)
    first = recover_sequential(calibration.index, calibration.affines, mask, images[:60], start=start, seed=1)
    assert all(np.array_equal(bounded[k], first[k]) for k in first)


def test_sequential_repairs_the_stream(calibration, images):
    """Removing channels before a residual Add is compensated inside the block: better than fitting it blindly."""
    inner = next(g for g in calibration.index.groups if g.n_channels == 12)
    mask = np.ones(calibration.index.n_channels, dtype=bool)
    mask[inner.span] = np.arange(12) < 6
    reference = predict(calibration.graph, calibration.graph.proto, images)
    found = outputs_of(calibration, mask, calibration.recover(mask, "sequential"), images)
    assert distortion(found, reference) < 0.5 * distortion(outputs_of(calibration, mask, {}, images), reference)


def test_sensitivity_curve_is_the_refit_error(graph, images):
    """The elimination's curve equals the error of refitting on what it keeps, computed from scratch."""
    index = build_index(graph)
    affines = find_affines(index)
    moments = collect_moments(graph, affines, images)
    found = scan_sensitivity(index, affines, moments, {})
    number = next(i for i, g in enumerate(index.groups) if g.n_channels == 12)
    order, curve = found.ranked[number], found.curves[number]
    matrix = to_matrix(next(a for a in affines if a.node.index == 4), graph, graph.operand((4, 1)))
    covariance = moments[4].covariance[0].copy()
    total = np.trace(matrix @ covariance @ matrix.T)
    covariance[np.diag_indices_from(covariance)] += 1e-4 * np.trace(covariance) / len(covariance)
    for width in (9, 6, 3):
        columns = (np.sort(order[:width])[:, None] * 9 + np.arange(9)).reshape(-1)
        cross = covariance[columns] @ matrix.T
        explained = np.trace(cross.T @ np.linalg.solve(covariance[np.ix_(columns, columns)], cross))
        assert curve[width] == pytest.approx((np.trace(matrix @ covariance @ matrix.T) - explained) / total, rel=1e-6)
    assert curve[12] == 0
    assert np.all(np.diff(curve[1:]) <= 0)
    assert sorted(order.tolist()) == list(range(12))


def test_elimination_beats_the_weights_norm(graph, images):
    index = build_index(graph)
    affines = find_affines(index)
    moments = collect_moments(graph, affines, images)
    number = next(i for i, g in enumerate(index.groups) if g.n_channels == 12)
    by_data = scan_sensitivity(index, affines, moments, {})
    by_norm = scan_sensitivity(index, affines, {}, {})
    targets = fit_targets(graph, affines, moments)

    def error(order):
        mask = np.ones(index.n_channels, dtype=bool)
        mask[index.groups[number].span] = np.isin(np.arange(12), order[:5])
        fitted = to_matrix(affines[2], graph, recover_oneshot(index, affines, moments, targets, mask)[(4, 1)])
        columns = (np.sort(order[:5])[:, None] * 9 + np.arange(9)).reshape(-1)
        return -np.trace(fitted @ targets[4][0, columns])

    assert error(by_data.ranked[number]) <= error(by_norm.ranked[number])


def test_weighed_curves_know_how_far_an_error_travels(calibration):
    weighed = weigh_curves(calibration, calibration.images)
    before, after = calibration.sensitivity, weighed.sensitivity
    assert all(np.array_equal(a, b) for a, b in zip(before.ranked, after.ranked, strict=True))
    graph, index = calibration.graph, calibration.index
    reference = predict(graph, graph.proto, calibration.images)
    for number, curve in enumerate(after.curves):
        assert curve[-1] == 0
        assert np.all(np.diff(curve) <= 0)
        widths = np.array([g.n_channels for g in index.groups])
        widths[number] //= 2
        mask = calibration.mask(widths)
        outputs = predict(graph, cut(index, mask, calibration.fit(mask)), calibration.images)
        assert curve[widths[number]] == pytest.approx(distortion(outputs, reference), rel=1e-3)


def test_same_seed_same_calibration(graph, images):
    index = build_index(graph)
    first, second = (calibrate(index, images, seed=5) for _ in range(2))
    mask = first.mask(halved(first))
    a, b = first.recover(mask, "sequential"), second.recover(mask, "sequential")
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[k], b[k]) for k in a)


def test_a_model_of_integers_throughout_has_nothing_to_recover():
    proto = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17]>
    integers (float[N, 4] x) => (float[N, 2] y) {
        q = QuantizeLinear(x, s, z)
        h = QLinearMatMul(q, s, z, A, s, w, s, z)
        y8 = QLinearMatMul(h, s, z, B, s, w, s, z)
        y = DequantizeLinear(y8, s, z)
    }""")
    arrays = {
        "s": np.float32(0.05), "z": np.uint8(9), "w": np.int8(0),
        "A": np.arange(24).reshape(4, 6).astype(np.int8), "B": np.arange(12).reshape(6, 2).astype(np.int8),
    }  # fmt: skip
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items())
    graph = from_proto(proto)
    index = build_index(graph)
    found = calibrate(index, np.ones((3, 4), np.float32))
    assert [g.n_channels for g in index.groups] == [6]
    assert found.moments == found.recover(np.arange(6) < 4, "sequential") == {}


@pytest.mark.parametrize("recovery", ["oneshot", "sequential"])
@pytest.mark.parametrize("value", [0.0, 1.0, 100.0, 1e4])
def test_images_that_are_all_alike_are_survived(graph, value, recovery):
    """The covariance of every layer is nothing but rounding, and may have negative eigenvalues."""
    alike = np.full((60, 3, 8, 8), value, np.float32)
    found = weigh_curves(calibrate(build_index(graph), alike), alike)
    weights = found.recover(found.mask(halved(found)), recovery)
    assert all(np.isfinite(array).all() for array in weights.values())
