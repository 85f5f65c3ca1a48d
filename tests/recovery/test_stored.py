"""Weights that DequantizeLinear reads are fitted, rounded to their grid, and stay integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bocr_onnx.deploy import Int8, prepared, quantize
from bocr_onnx.graph import Array, ModelGraph, from_proto
from bocr_onnx.groups import build_index
from bocr_onnx.recovery import Calibration, calibrate
from bocr_onnx.runtime import predict, run_once
from bocr_onnx.slimming import cut, prove_cut
from bocr_onnx.tasks import distortion
from tests.oracle import build

NET = """m (float[N, 3, 8, 8] x) => (float[N, 6, 8, 8] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)  ar = Relu(a)
    b = Conv <pads = [1, 1, 1, 1]> (ar, w1, b1)  br = Relu(b)
    y = Conv(br, w2, b2)
}"""
SHAPES: dict[str, Any] = {"w0": (16, 3, 3, 3), "b0": (16,), "w1": (12, 16, 3, 3), "b1": (12,), "w2": (6, 12, 1, 1),
                          "b2": (6,)}  # fmt: skip


def images(n: int, seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal((n, 3, 8, 8)).astype(np.float32)


def as_trained_with_quantization(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model with weights in floating point, which a QuantizeLinear before every DequantizeLinear rounds."""
    held = {t.name: t for t in proto.graph.initializer}
    made = list(proto.graph.node)
    del proto.graph.node[:]
    for node in made:
        source = held.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if source is not None and source.data_type == onnx.TensorProto.INT8:
            scale = numpy_helper.to_array(held[node.input[1]])
            codes = numpy_helper.to_array(source)
            wide = scale.reshape(-1, *[1] * (codes.ndim - 1)) if scale.ndim else scale
            source.CopyFrom(numpy_helper.from_array((codes * wide).astype(np.float32), source.name))
            rounded = f"{source.name}.rounded"
            before = onnx.helper.make_node("QuantizeLinear", [source.name, *node.input[1:]], [rounded])
            before.attribute.extend(node.attribute)
            proto.graph.node.append(before)
            node.input[0] = rounded
        proto.graph.node.append(node)
    return proto


@pytest.fixture(scope="module", params=["integers", "numbers that are rounded"])
def calibration(request: pytest.FixtureRequest) -> Calibration:
    feeds = [{"x": images(1, seed)} for seed in range(20)]
    made = quantize(prepared(build(NET, **SHAPES).proto), feeds, Int8("uint8"))
    made = made if request.param == "integers" else as_trained_with_quantization(made)
    return calibrate(build_index(from_proto(made)), images(150, 1))


def halves(calibration: Calibration) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return calibration.mask(np.array([g.n_channels // 2 for g in calibration.index.groups]))


def weights_of(graph: ModelGraph) -> list[Array]:
    return [graph.constant(node.inputs[0]) for node in graph.nodes  # type: ignore[misc]
            if node.op == "DequantizeLinear" and graph.constant(node.inputs[0]) is not None]  # fmt: skip


@pytest.mark.parametrize("recovery", ["oneshot", "sequential"])
def test_a_fit_helps_and_the_weights_stay_integers(calibration: Calibration, recovery: Any) -> None:
    index, mask, seen = calibration.index, halves(calibration), images(100, 2)
    reference = predict(calibration.graph, calibration.graph.proto, seen)
    weights = calibration.recover(mask, recovery)
    assert {at[1] for at in weights} == {1, 2}
    plain, slim = cut(index, mask), cut(index, mask, weights)
    before, after = (distortion(predict(calibration.graph, proto, seen), reference) for proto in (plain, slim))
    assert after < 0.8 * before
    stored, original = (weights_of(from_proto(proto)) for proto in (slim, plain))
    assert [(one.shape, one.dtype) for one in stored] == [(one.shape, one.dtype) for one in original]
    assert any(not np.array_equal(*pair) for pair in zip(stored, original, strict=True))
    assert [n.op_type for n in slim.graph.node] == [n.op_type for n in plain.graph.node]


@pytest.mark.parametrize("recovery", ["oneshot", "sequential"])
def test_what_is_written_is_proved(calibration: Calibration, recovery: Any) -> None:
    mask = halves(calibration)
    weights = calibration.recover(mask, recovery)
    proof = prove_cut(calibration.index, mask, cut(calibration.index, mask, weights), run_once, weights=weights)
    assert proof.passed


def test_what_a_grid_cannot_hold_is_cut_off_and_halves_go_to_the_even() -> None:
    from bocr_onnx.slimming.stored import Grid

    grid = Grid((0, 0), np.float32(0.5), np.array(3), np.dtype(np.int8), holds_integers=True)
    weight = np.array([0.25, 0.75, 1000, -1000, 0.5], np.float32)
    assert grid.stored(weight).tolist() == [3, 5, 127, -128, 4]
    assert grid.nearest(weight).tolist() == [0.0, 1.0, 62.0, -65.5, 0.5]


def test_integers_that_two_operators_share_are_left() -> None:
    text = """m (float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y) {
        a = Conv(x, w)  r = Relu(a)  d = DequantizeLinear(q, s, z)  u = Conv(r, d)  v = Conv(r, d)  y = Add(u, v) }"""
    graph = build(text, w=(8, 3, 1, 1), q=np.ones((4, 8, 1, 1), np.int8), s=np.float32(0.1), z=np.int8(0))
    assert [a.node.index for a in calibrate(build_index(graph), images(20, 0)).affines] == [0]
