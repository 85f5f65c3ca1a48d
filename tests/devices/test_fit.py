"""A latency that follows blocks of channels is found from timings of some policies, and predicts others."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bocr_onnx.cost import BOUNDS, LATENCY, CostModel, Terms, read_latency
from bocr_onnx.devices.fit import BLOCKS, fit_latency

FULL = np.array([64, 128, 48, 96])
SCALE = np.array([784.0 * 9, 784.0, 196.0 * 9, 196.0])
RNG = np.random.default_rng(0)


def terms() -> Terms:
    """Four convolutions in a row, the first of three colours."""
    forms = np.zeros((4, 2, 5))
    for i in range(4):
        forms[i, 0, 1 + i] = 1
        if i:
            forms[i, 1, i] = 1
    forms[0, 1, 0] = 3
    return Terms(SCALE, forms)


def plain() -> CostModel:
    return CostModel(FULL, terms(), terms(), terms(), 0)


def true_ms(widths: np.ndarray, block: int) -> np.ndarray:
    padded = np.ceil(widths / block) * block
    inputs = np.concatenate([np.full((len(widths), 1), 3.0), padded[:, :-1]], axis=1)
    speed = np.array([1.0, 2.0, 1.2, 3.0]) * 1e-7
    return 0.1 + (SCALE * padded * inputs * speed).sum(axis=1)


def policies(n: int) -> np.ndarray:
    return np.concatenate([FULL[None], RNG.integers(4, FULL + 1, (n, 4))])


@pytest.mark.parametrize("block", [1, 4, 16])
def test_block_and_times_are_found(block: int) -> None:
    seen, unseen = policies(40), policies(20)
    cost = fit_latency(plain(), list(seen), list(true_ms(seen, block)))
    assert cost.latency is not None
    assert cost.latency.block == block
    assert cost.latency.error < 0.02
    np.testing.assert_allclose(cost.latency_ms(unseen), true_ms(unseen, block), rtol=0.03)
    assert cost.latency_ms(FULL)[0] == pytest.approx(true_ms(FULL[None], block)[0], rel=0.03)


def test_kernels_that_skip_what_pads_their_blocks_are_understood() -> None:
    """Half of the time follows blocks of 16, half the channels themselves."""

    def mixed(widths: np.ndarray) -> np.ndarray:
        return 0.5 * true_ms(widths, 16) + 0.5 * true_ms(widths, 1)

    seen, unseen = policies(40), policies(20)
    cost = fit_latency(plain(), list(seen), list(mixed(seen)))
    np.testing.assert_allclose(cost.latency_ms(unseen), mixed(unseen), rtol=0.03)
    narrow, wide = np.array([[8, 64, 24, 48]]), np.array([[16, 64, 24, 48]])
    assert cost.latency_ms(narrow)[0] < cost.latency_ms(wide)[0]


def test_noise_is_not_believed() -> None:
    seen, unseen = policies(40), policies(20)
    noisy = true_ms(seen, 8) * RNG.normal(1, 0.02, len(seen))
    cost = fit_latency(plain(), list(seen), list(noisy))
    assert cost.latency is not None
    assert cost.latency.error > 0.01
    assert np.median(np.abs(cost.latency_ms(unseen) / true_ms(unseen, 8) - 1)) < 0.03


def test_time_never_falls_as_channels_come() -> None:
    seen = policies(40)
    cost = fit_latency(plain(), list(seen), list(true_ms(seen, 16)))
    for group in range(4):
        widths = np.repeat(FULL[None], FULL[group], axis=0)
        widths[:, group] = np.arange(1, FULL[group] + 1)
        assert (np.diff(cost.latency_ms(widths)) >= -1e-12).all()


def test_few_policies_are_fitted_too() -> None:
    seen = policies(2)
    cost = fit_latency(plain(), list(seen), list(true_ms(seen, 4)))
    assert cost.latency is not None
    assert cost.latency.block in BLOCKS
    assert LATENCY.share(cost, FULL) == pytest.approx(1)


def test_a_model_without_timings_has_no_latency() -> None:
    with pytest.raises(ValueError, match="no latency was fitted"):
        BOUNDS["latency"].total(plain(), FULL)


def test_it_is_written_and_read() -> None:
    seen = policies(40)
    model = fit_latency(plain(), list(seen), list(true_ms(seen, 8))).latency
    assert model is not None
    assert read_latency(json.loads(json.dumps(model.as_json()))) == model
    for broken in ({}, {"block": 0}, {"coefficients": "x"}, {"full_ms": float("nan")}, {"error": None}):
        with pytest.raises(ValueError, match="a record of latency must hold"):
            read_latency(broken if not broken else {**model.as_json(), **broken})
