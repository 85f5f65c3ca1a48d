"""When a ranking is a choice: channels are undecided only where nothing at all tells them apart."""

from __future__ import annotations

import numpy as np
import pytest

from bocr_onnx.groups import build_index
from bocr_onnx.recovery import calibrate
from tests.oracle import build

READ_BY_ONE = """m (float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w, b) r = Relu(a) y = ConvTranspose(r, v)
}"""
READ_BY_TWO = """m (float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w, b) r = Relu(a) p = ConvTranspose(r, v) q = ConvTranspose(r, u) y = Add(p, q)
}"""


@pytest.mark.parametrize("step", [0.0, 1e-3, 0.02, 1.0])
def test_the_smallest_difference_of_weights_decides(step: float) -> None:
    weight = np.ones((16, 4, 1, 1), np.float32) * (1 + step * np.arange(16)[::-1].reshape(-1, 1, 1, 1))
    weight = np.roll(weight, 3, axis=0).astype(np.float32)
    graph = build(READ_BY_ONE, w=(16, 3, 3, 3), b=(16,), v=weight)
    found = calibrate(build_index(graph), None).sensitivity
    assert found.blind == (() if step else (0,))
    assert found.ranked[0].tolist() == (np.roll(np.arange(16), -3).tolist() if step else list(range(16)))


def test_readers_add_up_by_their_shares_and_not_by_their_size() -> None:
    """One reads two channels, the other as many of them alone, a thousand times as strongly: each counts as one."""
    weak, strong = (np.full((16, 4, 1, 1), 1e-3, np.float32) for _ in range(2))
    weak[[4, 9]] = 1
    strong[[7]] = 1000
    graph = build(READ_BY_TWO, w=(16, 3, 3, 3), b=(16,), v=weak, u=strong)
    ranked = calibrate(build_index(graph), None).sensitivity.ranked[0]
    assert ranked[:3].tolist() == [7, 4, 9]
    curve = calibrate(build_index(graph), None).sensitivity.curves[0]
    assert curve[1] == pytest.approx(1.0, rel=1e-3)
    assert curve[2] == pytest.approx(0.5, rel=1e-3)
    assert curve[3] < 1e-3


def test_a_group_without_channels_loses_no_more_than_with_one() -> None:
    graph = build(READ_BY_ONE, w=(16, 3, 3, 3), b=(16,), v=(16, 4, 1, 1))
    seen = np.random.default_rng(0).standard_normal((20, 3, 8, 8)).astype(np.float32)
    for images in (None, seen):
        (curve,) = calibrate(build_index(graph), images).sensitivity.curves
        assert curve[0] == curve[1] > curve[2] > curve[15] > curve[16] == 0
