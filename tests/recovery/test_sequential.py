"""Sequential recovery on streams: a block repairs what earlier blocks have lost, where it can."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bocr_onnx.graph import Array, ModelGraph, Operand
from bocr_onnx.groups import build_index
from bocr_onnx.recovery import calibrate, sequential
from bocr_onnx.recovery.calibration import Calibration, Weights
from bocr_onnx.recovery.moments import N_ROWS
from bocr_onnx.runtime import predict
from bocr_onnx.slimming import Mask, cut
from bocr_onnx.tasks import distortion
from tests.oracle import bn, build

NODES = """
    s = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)
    h1 = Conv <pads = [1, 1, 1, 1]> (s, w1, b1) h1r = Relu(h1) r1 = Conv <pads = [1, 1, 1, 1]> (h1r, v1, c1)
    t1 = Add(s, r1)
    h2 = Conv <pads = [1, 1, 1, 1]> (t1, w2, b2) h2r = Relu(h2) r2 = Conv <pads = [1, 1, 1, 1]> (h2r, v2, c2)
    n2 = BatchNormalization(r2, bn_s, bn_b, bn_m, bn_v)
    y = Add(t1, n2)
"""
TWO_BLOCKS = f"m (float[N, 3, 8, 8] x) => (float[N, 6, 8, 8] y) {{ {NODES} }}"
SHAPES: dict[str, Any] = {
    "w0": (6, 3, 3, 3), "b0": (6,), "w1": (12, 6, 3, 3), "b1": (12,), "v1": (6, 12, 3, 3), "c1": (6,),
    "w2": (20, 6, 3, 3), "b2": (20,), "v2": (6, 20, 3, 3), "c2": (6,),
}  # fmt: skip
LAST: Operand = (7, 1)
"""The weight that writes to the stream in the second block."""


def two_blocks(**changes: Array) -> ModelGraph:
    return build(TWO_BLOCKS, **SHAPES, **(bn(6) | changes))


def pictures() -> Array:
    return np.random.default_rng(1).standard_normal((60, 3, 8, 8)).astype(np.float32)


def damaged_first(graph: ModelGraph) -> tuple[Calibration, Mask]:
    """Returns the calibration, and a mask under which the first block alone has lost inner channels."""
    found = calibrate(build_index(graph), pictures())
    assert [g.n_channels for g in found.index.groups] == [12, 20]
    return found, found.mask(np.array([3, 20]))


def recovered(found: Calibration, mask: Mask) -> Weights:
    return found.recover(mask, "sequential")


def error_of(found: Calibration, mask: Mask, weights: Weights) -> float:
    assert found.images is not None
    slim = cut(found.index, mask, weights)
    return distortion(predict(found.graph, slim, found.images), predict(found.graph, found.graph.proto, found.images))


def test_a_block_repairs_what_an_earlier_one_has_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    found, mask = damaged_first(two_blocks())
    with_stream = error_of(found, mask, recovered(found, mask))
    monkeypatch.setattr(sequential, "_stream_error", lambda walk, affine: None)
    assert with_stream < 0.9 * error_of(found, mask, recovered(found, mask))


def test_the_stream_error_is_what_the_stream_lacks_over_the_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    gains = np.array([2, 1, 0.5, -1, -4, 0.25], np.float32)
    graph = two_blocks(bn_s=gains, bn_v=np.ones(6, np.float32))
    found, mask = damaged_first(graph)
    seen: list[Array] = []
    original = sequential._stream_error

    def spied(walk: Any, affine: Any) -> Any:
        errors = original(walk, affine)
        if affine.weight == LAST:
            assert errors is not None
            lost = [a - b for a, b in zip(walk.original["t1"], walk.slim["t1"], strict=True)]
            seen.extend(e * gains.reshape(-1, 1, 1) - d for e, d in zip(errors, lost, strict=True))
        return errors

    monkeypatch.setattr(sequential, "_stream_error", spied)
    recovered(found, mask)
    assert seen
    assert max(np.abs(d).max() for d in seen) < 1e-3


def test_the_error_of_a_stream_that_was_cut_is_that_of_the_channels_it_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"m (float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] z) {{ {NODES} z = Conv(y, wz, bz) }}"
    graph = build(text, **SHAPES, **bn(6), wz=(4, 6, 1, 1), bz=(4,))
    found = calibrate(build_index(graph), pictures())
    mask = np.ones(found.index.n_channels, dtype=bool)
    stream = next(g for g in found.index.groups if g.n_channels == 6)
    mask[stream.start + np.array([0, 3])] = False
    seen: list[Array] = []
    original = sequential._stream_error

    def spied(walk: Any, affine: Any) -> Any:
        errors = original(walk, affine)
        if affine.weight == LAST:
            assert errors is not None
            gain = sequential._gain(walk, walk.index.graph.nodes[8]).reshape(-1, 1, 1)
            lost = [a[:, [1, 2, 4, 5]] - b for a, b in zip(walk.original["t1"], walk.slim["t1"], strict=True)]
            seen.extend(e * gain - d for e, d in zip(errors, lost, strict=True))
        return errors

    monkeypatch.setattr(sequential, "_stream_error", spied)
    recovered(found, mask)
    assert seen
    assert max(np.abs(d).max() for d in seen) < 1e-3


@pytest.mark.parametrize("gain", [1e-6, -1e-6, 0.0])
def test_a_channel_that_hardly_reaches_the_stream_is_not_asked_to_repair_it(gain: float) -> None:
    """The error of the stream over such a gain would be an enormous target, and so would the weights be."""
    gains = np.array([1, 1, gain, 1, 1, 1], np.float32)
    graph = two_blocks(bn_s=gains)
    found, mask = damaged_first(graph)
    weights = recovered(found, mask)[LAST]
    original = graph.operand(LAST)
    assert original is not None
    norms = np.linalg.norm(weights.reshape(6, -1), axis=1) / np.linalg.norm(original.reshape(6, -1), axis=1)
    assert np.isfinite(weights).all()
    assert norms.max() < 3


def test_few_images_do_not_spoil_a_wide_layer() -> None:
    """A fit that is nearly exact on the images that were seen must on others not lose to no fit at all."""
    graph = build(
        "m (float[N, 64] x) => (float[N, 10] y) { h = MatMul(x, a)  r = Relu(h)  y = Gemm(r, b) }",
        a=(64, 64),
        b=(64, 10),
    )
    rng = np.random.default_rng(0)
    seen, others = (rng.standard_normal((n, 64)).astype(np.float32) for n in (50, 400))
    found = calibrate(build_index(graph), seen)
    mask = found.mask(np.array([32]))
    on_others = replace(found, images=others)
    assert error_of(on_others, mask, recovered(found, mask)) < 0.8 * error_of(on_others, mask, {})


def test_an_operator_with_too_many_inputs_is_cut_without_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    found, mask = damaged_first(two_blocks())
    fitted = {weight[0] for weight in recovered(found, mask)}
    monkeypatch.setattr(sequential, "MAX_COLUMNS", 9 * 6)
    narrow = {weight[0] for weight in recovered(found, mask)}
    assert fitted - narrow == {LAST[0]}, "it reads 20 channels by 9 taps, the others at most 6"
    assert narrow


def test_the_seed_draws_the_positions() -> None:
    """Where there are more of them than rows are taken."""
    graph = build(
        "m (float[N, 2, 9, 9] x) => (float[N, 3, 9, 9] y) { a = Conv(x, w, b) r = Relu(a) y = Conv(r, v, c) }",
        w=(6, 2, 1, 1), b=(6,), v=(3, 6, 1, 1), c=(3,),
    )  # fmt: skip
    images = np.random.default_rng(1).standard_normal((600, 2, 9, 9)).astype(np.float32)
    assert len(images) * 81 > N_ROWS
    found = calibrate(build_index(graph), images)
    mask = found.mask(np.array([3]))
    first, again, other = (recovered(replace(found, seed=seed), mask)[2, 1] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
