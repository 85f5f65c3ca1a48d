"""What every device promises; a further one is added to `DEVICES` and passes these too."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from bocr_onnx.devices import DEVICES, open_device
from bocr_onnx.errors import ModelError, UsageError

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
m (float scale, float[%d, %d] x) => (float[%d, %d] y) { a = MatMul(x, x) b = MatMul(a, x) y = Mul(b, scale) }
"""
FEEDS = {"scale": np.array(0.5, np.float32), "x": np.full((160, 160), 1e-3, np.float32)}
SMALL = """
<ir_version: 8, opset_import: ["" : 17]>
m (float scale, float[160, 160] x) => (float[160, 160] y) { y = Mul(x, scale) }
"""


def model(text: str) -> bytes:
    return onnx.parser.parse_model(text).SerializeToString()


@pytest.fixture(scope="module")
def models() -> list[bytes]:
    return [model(TEXT % ((160,) * 4)), model(SMALL)]


@pytest.mark.parametrize("name", DEVICES)
def test_every_model_gets_as_many_positive_samples(name: str, models: list[bytes]) -> None:
    found = open_device(name).measure(models, FEEDS, threads=1, batch=3, budget_s=0.2)
    assert len({len(f.wall_ms) for f in found}) == 1
    for one in found:
        assert len(one.samples_ms) >= 16
        assert min(one.wall_ms) > 0
        assert (one.threads, one.batch) == (1, 3)
        assert one.iqr_ms >= 0
    assert len({f.clock for f in found}) == 1


@pytest.mark.parametrize("name", DEVICES)
def test_a_model_with_more_work_takes_longer_in_either_order(name: str, models: list[bytes]) -> None:
    large, small = open_device(name).measure(models, FEEDS, threads=1, budget_s=0.5)
    assert large.median_ms > 1.5 * small.median_ms
    small, large = open_device(name).measure(models[::-1], FEEDS, threads=1, budget_s=0.5)
    assert large.median_ms > 1.5 * small.median_ms


@pytest.mark.parametrize("name", DEVICES)
def test_inputs_stay_as_they_are(name: str, models: list[bytes]) -> None:
    before = {key: np.copy(value) for key, value in FEEDS.items()}
    open_device(name).measure(models, FEEDS, threads=1, budget_s=0.0)
    assert all(np.array_equal(before[key], value) for key, value in FEEDS.items())


@pytest.mark.parametrize("name", DEVICES)
def test_what_does_not_run_is_an_error_in_words(name: str, models: list[bytes]) -> None:
    with pytest.raises(ModelError, match="must"):
        open_device(name).measure([b"no model"], FEEDS, threads=1)
    with pytest.raises(ModelError, match="must"):
        open_device(name).measure(models, {"x": FEEDS["x"]}, threads=1)


def test_unknown_devices_name_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'host'"):
        open_device("hots")
