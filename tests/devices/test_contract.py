"""What every device promises; a further one is added to `DEVICES` and passes these too."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from bocr_onnx.devices import DEVICES, Device, Request, open_device, speedup
from bocr_onnx.errors import DeviceError, ModelError, UsageError

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
m (float scale, float[%d, %d] x) => (float[%d, %d] y) { a = MatMul(x, x) b = MatMul(a, x) y = Mul(b, scale) }
"""
FEEDS = {"scale": np.array(0.5, np.float32), "x": np.full((160, 160), 1e-3, np.float32)}
SMALL = """
<ir_version: 8, opset_import: ["" : 17]>
m (float scale, float[160, 160] x) => (float[160, 160] y) { y = Mul(x, scale) }
"""
QUICK = Request(budget_s=0.0)
WITHOUT_DETAILS = {"web", "android"}


def model(text: str) -> bytes:
    return onnx.parser.parse_model(text).SerializeToString()


@pytest.fixture(scope="module")
def models() -> list[bytes]:
    return [model(TEXT % ((160,) * 4)), model(SMALL)]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Device:
    if request.param == "ssh":
        return open_device(request.getfixturevalue("reached").device)
    if request.param == "web":
        return request.getfixturevalue("browsed")
    if request.param == "android":
        return open_device(f"android:{request.getfixturevalue('phone').serial}")
    return open_device(request.param)


def test_it_says_what_it_is(device: Device) -> None:
    machine = device.check()
    assert machine.cores >= 1
    assert machine.onnxruntime
    assert not machine.emulated
    assert device.name.partition(":")[0] in DEVICES


def test_every_model_gets_as_many_positive_samples(device: Device, models: list[bytes]) -> None:
    told: list[tuple[int, int]] = []
    found = device.measure(models, FEEDS, Request(batch=3, budget_s=0.2), lambda i, n: told.append((i, n)))
    assert found.device == device.name
    assert len({len(f.wall_ms) for f in found.latencies}) == 1
    for one in found.latencies:
        assert len(one.samples_ms) == len(one.cpu_ms) >= 24
        assert one.n_rounds == len(one.init_ms) == len(one.first_ms) >= 4
        assert len({len(r) for r in one.rounds_ms()}) == 1
        assert min(one.wall_ms) > 0
        assert min(one.init_ms) > 0
        assert (one.threads, one.batch) == (1, 3)
        assert one.iqr_ms >= 0
        assert one.kernels == ()
        assert one.peak_bytes is None
    assert len({f.clock for f in found.latencies}) == 1
    assert told[-1][0] == told[-1][1] == found.latencies[0].n_rounds


def test_a_model_with_more_work_takes_longer_in_either_order(device: Device, models: list[bytes]) -> None:
    large, small = device.measure(models, FEEDS, Request(budget_s=0.5)).latencies
    assert large.median_ms > 1.5 * small.median_ms
    assert speedup(large, small).value > 1.2  # its interval is wide on a machine that is busy
    small, large = device.measure(models[::-1], FEEDS, Request(budget_s=0.5)).latencies
    assert speedup(small, large).value < 0.8


def test_details_are_kernels_and_memory(device: Device, models: list[bytes]) -> None:
    if device.name.partition(":")[0] in WITHOUT_DETAILS:
        pytest.skip("its runtime tells neither")
    large, small = device.measure(models, FEEDS, Request(budget_s=0.0, details=True)).latencies
    assert {k.op for k in large.kernels} == {"MatMul", "Mul"}
    assert [k.op for k in small.kernels] == ["Mul"]
    assert all(k.ms > 0 and k.provider == "CPUExecutionProvider" for k in large.kernels)
    assert large.peak_bytes is not None
    assert small.peak_bytes is not None
    assert large.peak_bytes > 2 * 160 * 160 * 4


def test_outputs_are_those_of_every_batch(device: Device, models: list[bytes]) -> None:
    x = np.linspace(0, 1, 2 * 160 * 160, dtype=np.float32).reshape(2, 160, 160)
    told: list[tuple[int, int]] = []
    batches = {"scale": np.array([0.5, 2.0], np.float32), "x": x}
    found = device.outputs(models, batches, ["y"], QUICK, lambda i, n: told.append((i, n)))
    assert told[-1][0] == told[-1][1] > 0
    np.testing.assert_array_equal([one for (one,) in found[1]], [x[0] * 0.5, x[1] * 2])
    np.testing.assert_allclose(found[0][1][0], x[1] @ x[1] @ x[1] * 2, rtol=1e-4)
    with pytest.raises(ModelError, match="must"):
        device.outputs(models, batches, ["z"], QUICK)


def test_runs_and_threads_are_as_asked(device: Device, models: list[bytes]) -> None:
    found = device.measure(models, FEEDS, Request(threads=2, runs=48)).latencies
    assert [len(f.wall_ms) for f in found] == [48, 48]
    assert [(f.threads, f.clock) for f in found] == [(2, "wall")] * 2


def test_inputs_stay_as_they_are(device: Device, models: list[bytes]) -> None:
    before = {key: np.copy(value) for key, value in FEEDS.items()}
    device.measure(models, FEEDS, QUICK)
    assert all(np.array_equal(before[key], value) for key, value in FEEDS.items())


def test_what_does_not_run_is_an_error_in_words(device: Device, models: list[bytes]) -> None:
    with pytest.raises(ModelError, match="must"):
        device.measure([b"no model"], FEEDS, QUICK)
    with pytest.raises(ModelError, match="must"):
        device.measure(models, {"x": FEEDS["x"]}, QUICK)
    with pytest.raises(DeviceError, match="provider CUDAExecutionProvider must be available, got"):
        device.measure(models, FEEDS, Request(provider="CUDAExecutionProvider"))


@pytest.mark.parametrize(
    "name",
    [
        "hots",
        "host://x",
        "ssh://",
        "ssh://-oProxyCommand=x",
        "ssh://a@-x",
        "ssh://a b",
        "ssh://host:x",
        "ssh",
        "",
        "web://here",
        "web://1.2.3.4:x",
    ],
)
def test_names_of_another_form_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"`device` must be"):
        open_device(name)
