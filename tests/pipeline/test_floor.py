"""A floor under the score: the cheapest budget that holds it is found, on images of which the report has no figure."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import bocr_onnx
from bocr_onnx.cli.main import app
from bocr_onnx.data import LazyInputs, load_preprocessing, part
from bocr_onnx.devices import Probe
from bocr_onnx.errors import BudgetError, DataError, UsageError
from bocr_onnx.graph import load
from bocr_onnx.options import MAX_BUDGETS, MOST_SHARE
from bocr_onnx.pipeline.floor import CLOSE_ENOUGH, Deciding, Floor, Tried, cheapest, search_share
from bocr_onnx.tasks import find_task

pytestmark = pytest.mark.slow

DEMO = str(files("bocr_onnx.calibration") / "demo.onnx")
DIGITS = str(files("bocr_onnx.calibration") / "digits.npz")
QUICK: dict[str, Any] = {
    "data": DIGITS, "search": "sensitivity", "history": "none", "recover": "oneshot", "score_images": 100,
    "recovery_images": 200, "final_images": 600, "confidence": 0.6,
}  # fmt: skip


def falling(threshold: float, steep: float = 0.3) -> Any:
    """Returns a trial of budgets whose margin crosses zero at a share."""
    return lambda share: Tried(share, 0.9, steep * (share - threshold), steep * (share - threshold) ** 3)


@pytest.mark.parametrize("threshold", [0.08, 0.2, 0.31, 0.5, 0.62, 0.8, 0.93])
def test_the_share_is_found_to_a_twentieth_or_as_near_as_the_budgets_go(threshold: float) -> None:
    found = search_share(falling(threshold), 0.05)
    assert len(found) <= MAX_BUDGETS
    holding = min(one.share for one in found if one.holds)
    assert threshold <= holding <= threshold * CLOSE_ENOUGH + 0.03
    assert len({one.share for one in found}) == len(found)


def test_a_floor_that_everything_holds_ends_at_the_least_share() -> None:
    found = search_share(falling(0.0), 0.22)
    assert min(one.share for one in found) == 0.22
    assert len(found) <= 4


def test_a_floor_that_nothing_holds_is_given_up() -> None:
    found = search_share(falling(1.5), 0.05)
    assert found[-1].share == MOST_SHARE
    with pytest.raises(BudgetError, match=r"a drop of at most 1 points .* must be reachable; with `flops=0.97`"):
        cheapest(found, Floor(0.01, None, 0.9), "flops")


def test_the_demo_loses_no_more_than_asked(tmp_path: Path) -> None:
    report = bocr_onnx.prune(DEMO, max_drop=3.0, output=tmp_path / "s.onnx", **QUICK)
    assert (tmp_path / "s.onnx").exists()
    record = report.search["floor"]
    assert record["minimize"] == "flops"
    assert record["floor"] == "a drop of at most 3 points with 60% confidence"
    rows = record["budgets"]
    assert report.target == {"flops": min(row["flops"] for row in rows if row["holds"])}
    assert any(not row["holds"] for row in rows) or report.target["flops"] < 0.2
    for row in rows:
        assert row["holds"] == (row["sure"] >= 0)
        assert row["sure"] <= row["margin"]
    parts = report.data["parts"]
    deciding, final = parts["deciding"]["n_images"], parts["final"]["n_images"]
    assert deciding == pytest.approx(0.4 * (deciding + final), abs=1)
    assert parts["deciding"]["rows_sha256"] != parts["final"]["rows_sha256"]
    assert "Floor: a drop of at most 3 points" in (tmp_path / "s.run" / "report.md").read_text()
    again = bocr_onnx.prune(DEMO, resume=tmp_path / "s.run")
    assert again.target == report.target


def test_a_score_and_another_quantity(tmp_path: Path) -> None:
    report = bocr_onnx.prune(DEMO, min_score=0.9, minimize="params", output=tmp_path / "s.onnx", **QUICK)
    assert set(report.target) == {"params"}
    assert report.search["floor"]["floor"] == "a score of 0.9 with 60% confidence"
    deciding = Deciding(np.empty((0, 1)), (), find_task(load(DEMO, {}), "classification"), (0.8, 0.9))
    Floor(None, 0.84, 0.9).check(deciding)
    with pytest.raises(BudgetError, match=r"`min_score` must be below the score of the original, 85.00%, got 0.86"):
        Floor(None, 0.86, 0.9).check(deciding)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"max_drop": 1, "min_score": 0.5}, "one of `max_drop` and `min_score` must be given"),
        ({"max_drop": 1, "data": None}, "`max_drop` must have images"),
        ({"max_drop": 1, "flops": 0.5}, "`max_drop` finds the share of `flops` itself"),
        ({"min_score": 0.5, "rounds": 2}, "`min_score` must go with one round"),
        ({"max_drop": 1, "params": (0.5, 0.6)}, "`max_drop` must go with one round and single budgets"),
        ({"max_drop": 1, "search": "bocr", "trials": 13}, "`trials` must be at least 14"),
        ({"max_drop": 0}, "`max_drop` must be"),
        ({"max_drop": 1, "final_images": 50}, "must leave 40 images to decide by"),
    ],
)
def test_what_does_not_go_together_is_refused(asked: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises((UsageError, DataError), match=words):
        bocr_onnx.prune_each(DEMO, output=tmp_path / "s.onnx", **{**QUICK, **asked})


def test_the_command_line_tells_every_budget(tmp_path: Path) -> None:
    asked = ["prune", DEMO, "--max-drop", "3", "--data", DIGITS, "--search", "uniform", "--history", "none"]
    asked += ["--recover", "none", "--final-images", "600", "-o", str(tmp_path / "s.onnx")]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0, shown.output
    assert "the floor" in shown.stderr


def test_parts_of_lazy_images_are_read_where_they_lie() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (9, 8, 8, 3), np.uint8)
    whole = LazyInputs(pixels, load_preprocessing("unit"))
    some = part(part(whole, 2, 8), 1, 4)
    assert isinstance(some, LazyInputs)
    assert len(some) == 3
    np.testing.assert_array_equal(some[:], whole[3:6])
    np.testing.assert_array_equal(some[np.array([2, 0])], whole[np.array([5, 3])])
    np.testing.assert_array_equal(part(whole[:], 3, 6), whole[3:6])


def test_latency_is_made_small_on_the_grid_of_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bocr_onnx.pipeline import prepare, timing

    probed: list[str] = []
    monkeypatch.setenv("BOCR_ONNX_DEVICES", str(tmp_path / "devices.json"))
    monkeypatch.setattr(timing, "N_POLICIES", 6)
    monkeypatch.setattr(prepare, "probe", lambda device, update: probed.append(device.name) or Probe(8, {32: 1.0}))
    given = {**QUICK, "search": "uniform", "recover": "none"}
    report = bocr_onnx.prune(DEMO, max_drop=60, minimize="latency", output=tmp_path / "s.onnx", **given)
    assert probed == ["host"]
    assert set(report.target) == {"latency"}
    assert report.search["grid"] == 8
    assert (tmp_path / "s.run" / "latency.json").exists()
