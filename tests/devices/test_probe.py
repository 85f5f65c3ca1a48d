"""The channel grid: found from times, measured on this host, remembered, and taken by searches that leave it open."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

import bocr_onnx
from bocr_onnx.api.device import check_device
from bocr_onnx.devices import Host, Probe, find_grid, remember, remembered_grid
from bocr_onnx.devices.probe import WIDTHS
from bocr_onnx.errors import DeviceError

pytestmark = pytest.mark.slow

DEMO = str(files("bocr_onnx.calibration") / "demo.onnx")


def plateaus(block: int, penalty: float = 1.0, vector: int = 4) -> dict[int, float]:
    """Returns times of a device that works on blocks, and loses its fast path off a vector."""
    return {c: -(-c // block) * (penalty if c % vector else 1.0) for c in WIDTHS}


@pytest.mark.parametrize(
    ("times", "grid"),
    [
        (plateaus(16), 16),
        (plateaus(16, penalty=1.7), 16),
        (plateaus(8), 8),
        (plateaus(4), 4),
        (plateaus(32), 32),
        ({c: c**1.0 for c in WIDTHS}, 1),
        ({c: c * (1.5 if c % 4 else 1.0) for c in WIDTHS}, 4),
        (plateaus(16) | {44: 2.0}, 16),
    ],
    ids=["AVX-512", "AVX-512, 4 or slow", "AVX2", "4", "32", "no grid", "4 or slow", "one outlier"],
)
def test_the_grid_is_found_from_times(times: dict[int, float], grid: int) -> None:
    assert find_grid(times) == grid


def test_a_grid_is_remembered_for_a_device_and_its_runtime(tmp_path: Path) -> None:
    host, file = Host(), tmp_path / "cache" / "devices.json"
    machine = host.check()
    assert remembered_grid(file, host, machine) is None
    remember(file, host, machine, Probe(16, {32: 0.4}))
    assert remembered_grid(file, host, machine) == 16
    assert remembered_grid(file, host, replace(machine, onnxruntime="9.9")) is None
    for text in ("{", "[]", '{"x": 5}', json.dumps({k: {"grid": 0} for k in json.loads(file.read_text())})):
        file.write_text(text)
        assert remembered_grid(file, host, machine) is None
    (tmp_path / "taken").write_text("")
    with pytest.raises(DeviceError, match="what was found must be kept in"):
        remember(tmp_path / "taken" / "devices.json", host, machine, Probe(16, {}))


def test_a_search_takes_the_grid_that_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOCR_ONNX_DEVICES", str(tmp_path / "devices.json"))
    options = {"flops": 0.5, "search": "uniform", "history": "none"}
    bocr_onnx.prune(DEMO, **options, output=tmp_path / "plain.onnx")
    found = check_device()
    assert found.probe.grid in (1, 2, 4, 8, 16, 32)
    assert json.loads((tmp_path / "devices.json").read_text())
    host = Host()
    remember(tmp_path / "devices.json", host, host.check(), Probe(4, {}))
    report = bocr_onnx.prune(DEMO, **options, output=tmp_path / "on_grid.onnx")
    record = json.loads((tmp_path / "on_grid.run" / "report.json").read_text())
    plain = json.loads((tmp_path / "plain.run" / "report.json").read_text())
    assert (record["search"]["grid"], plain["search"]["grid"]) == (4, 8)
    assert report.result.macs < report.baseline.macs
    fixed = bocr_onnx.prune(DEMO, **options, round_to=8, output=tmp_path / "fixed.onnx")
    assert fixed.result.macs == bocr_onnx.prune(DEMO, **options, round_to=8, output=tmp_path / "f2.onnx").result.macs
