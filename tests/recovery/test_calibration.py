"""How the error curves of groups are scaled by measured cuts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bocr_onnx.groups import build_index
from bocr_onnx.recovery import calibrate, calibration, weigh_curves
from bocr_onnx.recovery.calibration import MAX_BEND, Calibration
from bocr_onnx.slimming import cut
from bocr_onnx.tasks import total_distortion
from tests.oracle import build


@pytest.fixture(scope="module")
def found() -> Calibration:
    """One group of 16 channels, each of which costs the same."""
    graph = build("m (float[N, 8] x) => (float[N, 5] y) { h = MatMul(x, a) r = Relu(h) y = MatMul(r, b) }",
                  a=(8, 16), b=(16, 5))  # fmt: skip
    images = np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32)
    made = calibrate(build_index(graph), images)
    return replace(made, sensitivity=replace(made.sensitivity, curves=(1 - np.arange(17) / 16,)))


def weighed(found: Calibration, monkeypatch: pytest.MonkeyPatch, half: float, quarters: float) -> Any:
    """Returns the curve where a unit of error travels this far at half and at three quarters of the channels."""
    factors = {0.5: half, 0.75: quarters}
    monkeypatch.setattr(calibration, "_travel", lambda c, group, ratio, images, reference: factors[ratio])
    (curve,) = weigh_curves(found, found.images).sensitivity.curves
    return curve


def test_the_factor_is_interpolated_geometrically_and_constant_beyond(
    found: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    curve = weighed(found, monkeypatch, 8.0, 2.0)
    (before,) = found.sensitivity.curves
    np.testing.assert_allclose(curve[[4, 8, 10, 12, 14, 16]], before[[4, 8, 10, 12, 14, 16]] * [8, 8, 4, 2, 2, 2])


@pytest.mark.parametrize(("quarters", "kept"), [(1e-6, 1 / MAX_BEND), (0.5, 0.5)])
def test_a_smaller_factor_that_is_rounding_is_not_believed(
    quarters: float, kept: float, found: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    curve = weighed(found, monkeypatch, 1.0, quarters)
    assert curve[12] == pytest.approx(0.25 * kept)
    assert curve[8] == pytest.approx(0.5)


def test_more_channels_never_cost_more(found: Calibration, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the factor grows faster than the curve falls, fewer channels cost what more of them do."""
    curve = weighed(found, monkeypatch, 1.0, 1e6)
    assert np.all(np.diff(curve) <= 0)
    assert curve[12] == pytest.approx(0.25 * MAX_BEND)
    assert curve[8] == pytest.approx(0.25 * MAX_BEND)


def test_a_wide_group_that_few_images_explain_costs_what_it_costs_on_other_images() -> None:
    """Thirty images, forty channels: on its own images the fit loses next to nothing with half of them."""
    graph = build("m (float[N, 40] x) => (float[N, 30] y) { h = MatMul(x, a) r = Relu(h) y = MatMul(r, b) }",
                  a=(40, 40), b=(40, 30))  # fmt: skip
    few, others, many = np.split(np.random.default_rng(0).standard_normal((430, 40)).astype(np.float32), [30, 230])
    index = build_index(graph)
    made = calibrate(index, few)
    own, unseen = (weigh_curves(made, seen).sensitivity.curves[0][20] for seen in (few, others))
    mask = made.mask(np.array([20]))
    true = total_distortion(made.predict(cut(index, mask, made.fit(mask)), many), made.predict(graph.proto, many), ())
    assert unseen == pytest.approx(true, rel=0.1)
    assert own < 0.8 * true
