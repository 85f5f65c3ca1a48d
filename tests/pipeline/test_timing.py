"""A latency budget: policies are timed, finalists are measured and corrected, and the report tells both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

import bocr_onnx
from bocr_onnx.cli.main import app
from bocr_onnx.cost import CostModel, prunable
from bocr_onnx.devices import Host, Request, fit_latency
from bocr_onnx.errors import BudgetError, DeviceError, ResumeError, UsageError
from bocr_onnx.graph import from_proto, load
from bocr_onnx.options import PruneOptions
from bocr_onnx.pipeline import timing
from bocr_onnx.progress import Silent
from bocr_onnx.report import remarks
from bocr_onnx.search import build_space

pytestmark = pytest.mark.slow

DEMO = str(files("bocr_onnx.calibration") / "demo.onnx")
GIVEN: dict[str, Any] = {"search": "uniform", "history": "none", "round_to": 8}


class Clockwork(Host):
    """A device on which a model takes a time that its MACs say, in blocks of 8 channels, and a constant."""

    factor = 1.0
    lost_after = 10**9

    def __init__(self, place: str = "") -> None:
        super().__init__(place)
        self.asked: list[int] = []

    def measure(self, models: Sequence[bytes], feeds: Any, request: Request, progress: Any = None) -> Any:
        self.asked.append(len(models))
        if len(self.asked) > self.lost_after:
            raise DeviceError("clockwork was lost")
        found = super().measure(models[:1], feeds, replace(request, budget_s=0.0))
        one = found.latencies[0]
        macs = [
            float(prunable(from_proto(onnx.load_from_string(m))).cost.macs_terms.scale @ _padded(m)) for m in models
        ]
        times = [1e-6 * value + 0.2 for value in macs]
        times = [times[0], *(time * self.factor for time in times[1:])]
        samples = [replace(one, wall_ms=(t,) * len(one.wall_ms), cpu_ms=(t,) * len(one.cpu_ms)) for t in times]
        return replace(found, latencies=tuple(samples))


def _padded(model: bytes) -> np.ndarray:
    forms = prunable(from_proto(onnx.load_from_string(model))).cost
    lengths = np.einsum("g,tag->ta", np.concatenate([[1], forms.full]), forms.macs_terms.forms)
    return np.where(lengths > 3, np.ceil(lengths / 8) * 8, lengths).prod(axis=1)


@pytest.fixture
def clockwork(monkeypatch: pytest.MonkeyPatch) -> Clockwork:
    made = Clockwork()
    monkeypatch.setattr(timing, "N_POLICIES", 20)
    for module in ("timing", "prepare", "finish"):
        monkeypatch.setattr(f"bocr_onnx.pipeline.{module}.open_device", lambda name: made)
    return made


def test_policies_are_timed_and_predicted(clockwork: Clockwork) -> None:
    model = prunable(load(DEMO, {}))
    space = build_space(model.index, grid=4)
    found = timing.timed(model, space, clockwork, Request(), 0, Silent())
    assert found.cost.latency is not None
    assert found.cost.latency.block == 8
    assert found.cost.latency.error < 0.05
    unseen = timing._drawn(space, 7)
    times = timing.time_policies(model, [space.full, *unseen], clockwork, Request(), 0.1, lambda *_: None)
    np.testing.assert_allclose(found.cost.latency_ms(np.array(unseen)), times[1:], rtol=0.1)


def test_large_models_are_timed_in_slices_with_the_original_in_each(
    clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = prunable(load(DEMO, {}))
    space = build_space(model.index, grid=8)
    policies = [space.full, *timing._drawn(space, 0)[:5]]
    whole = timing.time_policies(model, policies, clockwork, Request(), 0.1, lambda *_: None)
    monkeypatch.setattr(timing, "SLICE_BYTES", 2 * len(model.graph.proto.SerializeToString()))
    clockwork.asked.clear()
    assert timing.time_policies(model, policies, clockwork, Request(), 0.1, lambda *_: None) == pytest.approx(whole)
    assert clockwork.asked == [3, 3, 2]


@pytest.mark.parametrize("factor", [0.9, 1.0, 1.12])
def test_finalists_that_miss_their_budget_as_measured_are_corrected(
    clockwork: Clockwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    def fitted(cost: CostModel, widths: Any, times: Any) -> CostModel:  # the device changes after the fit
        made = fit_latency(cost, widths, times)
        clockwork.factor = factor
        return made

    monkeypatch.setattr(timing, "fit_latency", fitted)
    report = bocr_onnx.prune(DEMO, latency=0.6, output=tmp_path / "s.onnx", **{**GIVEN, "round_to": 1})
    (row,) = report.latency["finalists"]
    assert row["measured"] == pytest.approx(0.6, abs=0.03)
    assert row["measured"] / row["predicted"] == pytest.approx(factor, rel=0.05)
    assert row["error"] == pytest.approx(row["predicted"] / row["measured"] - 1)
    assert report.target == {"latency": 0.6}
    assert report.missed == ()


def test_a_model_that_turns_out_slower_is_not_written_unless_forced(
    clockwork: Clockwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fitted(cost: CostModel, widths: Any, times: Any) -> CostModel:
        made = fit_latency(cost, widths, times)
        clockwork.factor = 20.0
        return made

    monkeypatch.setattr(timing, "fit_latency", fitted)
    with pytest.raises(BudgetError, match=r"`latency=0.6` must be reachable on host; as measured, finalists take"):
        bocr_onnx.prune(DEMO, latency=0.6, output=tmp_path / "s.onnx", **GIVEN)
    assert not (tmp_path / "s.onnx").exists()
    clockwork.factor = 1.0
    report = bocr_onnx.prune(DEMO, latency=0.6, force=True, output=tmp_path / "s.onnx", **GIVEN)
    assert (tmp_path / "s.onnx").exists()
    assert report.missed


def test_milliseconds_are_shares_of_the_original(clockwork: Clockwork, tmp_path: Path) -> None:
    full = timing.timed(
        prunable(load(DEMO, {})), build_space(prunable(load(DEMO, {})).index), clockwork, Request(), 0, Silent()
    ).cost.latency
    assert full is not None
    wanted = 0.7 * full.full_ms
    report = bocr_onnx.prune(DEMO, latency=f"{wanted:.6f}ms", output=tmp_path / "s.onnx", **GIVEN)
    assert report.target["latency"] == pytest.approx(0.7, rel=1e-3)
    with pytest.raises(BudgetError, match=r"`latency=99ms` must be below that of the original, \d"):
        bocr_onnx.prune(DEMO, latency="99ms", output=tmp_path / "t.onnx", **GIVEN)
    with pytest.raises(BudgetError, match=r"`latency` must be reachable, got 0.05; the smallest reachable share is"):
        bocr_onnx.prune(DEMO, latency=0.05, output=tmp_path / "t.onnx", **GIVEN)
    assert not (tmp_path / "t.onnx").exists()


class IntegersOnly(Clockwork):
    """On it a model in int8 takes a third of its time in floating point, and a fixed part; it remembers what it ran."""

    def __init__(self, place: str = "") -> None:
        super().__init__(place)
        self.kinds: list[tuple[bool, ...]] = []

    def measure(self, models: Sequence[bytes], feeds: Any, request: Request, progress: Any = None) -> Any:
        kinds = tuple(any(n.op_type == "QuantizeLinear" for n in onnx.load_from_string(m).graph.node) for m in models)
        self.kinds.append(kinds)
        found = super().measure(models, feeds, request, progress)
        times = [one.median_ms / 3 + 0.05 if kind else one.median_ms
                 for kind, one in zip(kinds, found.latencies, strict=True)]  # fmt: skip
        samples = [replace(one, wall_ms=(t,) * len(one.wall_ms), cpu_ms=(t,) * len(one.cpu_ms))
                   for t, one in zip(times, found.latencies, strict=True)]  # fmt: skip
        return replace(found, latencies=tuple(samples))


def test_with_int8_the_bound_is_one_of_models_in_int8(
    clockwork: Clockwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = IntegersOnly()
    for module in ("timing", "prepare", "finish", "deployed"):
        monkeypatch.setattr(f"bocr_onnx.pipeline.{module}.open_device", lambda name: made)
    digits = str(files("bocr_onnx.calibration") / "digits.npz")
    few = {"data": digits, "score_images": 100, "recovery_images": 100, "final_images": 100, "recover": "oneshot"}
    report = bocr_onnx.prune(DEMO, latency=0.7, int8=True, int8_drop=50, output=tmp_path / "s.onnx", **(GIVEN | few))
    floating = [kinds for kinds in made.kinds if not all(kinds)]
    assert floating == [(False, True, True), (False, False, True, True)], "what int8 is compared with at the end"
    latency = report.latency
    share = latency["int8_median_ms"] / latency["baseline_int8_median_ms"]
    assert share == pytest.approx(0.7, abs=0.03)
    assert latency["result_median_ms"] / latency["baseline_median_ms"] < 0.69
    assert latency["finalists"][0]["measured"] == pytest.approx(share, abs=0.01)
    assert report.missed == ()
    assert any("share of the original, both in int8" in remark for remark in remarks(report))


def test_budgets_of_several_kinds_hold_together(clockwork: Clockwork, tmp_path: Path) -> None:
    report = bocr_onnx.prune(DEMO, latency=0.8, flops=0.4, output=tmp_path / "s.onnx", **GIVEN)
    assert report.result.quantities["macs"] <= 0.4 * report.baseline.quantities["macs"]
    reports = bocr_onnx.prune_each(DEMO, latency="0.8,0.6", output=tmp_path / "f.onnx", **GIVEN)
    assert [r.target["latency"] for r in reports] == [0.8, 0.6]
    assert (tmp_path / "f_latency0.6.onnx").exists()


def test_a_resumed_run_has_the_timings_it_began_with(clockwork: Clockwork, tmp_path: Path) -> None:
    first = bocr_onnx.prune(DEMO, latency=0.6, output=tmp_path / "s.onnx", **GIVEN)
    kept = tmp_path / "s.run" / "latency.json"
    assert json.loads(kept.read_text())["full_ms"] > 0
    clockwork.asked.clear()
    again = bocr_onnx.prune(DEMO, resume=tmp_path / "s.run")
    assert max(clockwork.asked) < 10  # no policies, only finalists
    assert again.target == first.target
    kept.write_text("{}")
    with pytest.raises(ResumeError, match=r"latency.json must hold the timings of the run"):
        bocr_onnx.prune(DEMO, resume=tmp_path / "s.run")


def test_a_device_that_is_lost_before_the_search_costs_nothing(clockwork: Clockwork, tmp_path: Path) -> None:
    clockwork.lost_after = 0
    with pytest.raises(DeviceError, match="clockwork was lost"):
        bocr_onnx.prune(DEMO, latency=0.6, output=tmp_path / "s.onnx", **GIVEN)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"latency": "fast"}, "`latency` must be a share such as 0.6, or milliseconds such as 8ms, got 'fast'"),
        ({"latency": "0.6,8ms"}, "must be shares or milliseconds, not both"),
        ({"latency": "-8ms"}, "must be a share such as 0.6"),
        ({"latency": "1.5"}, "`latency` must be|`latency=1.5` must be below"),
        ({"latency": 0.5, "rounds": 2, "data": "x"}, "`rounds` must go towards a budget that is counted"),
    ],
)
def test_what_is_no_latency_is_refused(clockwork: Clockwork, asked: dict[str, Any], words: str) -> None:
    with pytest.raises((UsageError, BudgetError), match=words):
        bocr_onnx.prune(DEMO, output="/nonexistent/s.onnx", **{**GIVEN, **asked})


def test_latency_on_the_command_line(clockwork: Clockwork, tmp_path: Path) -> None:
    asked = ["prune", DEMO, "--latency", "0.6", "--search", "uniform", "--history", "none", "-o", f"{tmp_path}/s.onnx"]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0, shown.output
    assert "kernels work on blocks of" in shown.stderr.replace("\n", " ")
    assert PruneOptions(model=DEMO, latency="8 ms").latency == ("8ms",)
