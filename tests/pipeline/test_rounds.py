"""Pruning in rounds ends as one run does: one file, one plan of the original, one proof."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from importlib.resources import files

import numpy as np
import pytest

import bocr_onnx
from bocr_onnx.errors import UsageError
from bocr_onnx.options import PruneOptions
from bocr_onnx.pipeline.prepare import prepare
from bocr_onnx.pipeline.rounds import part_of
from bocr_onnx.pipeline.rundir import RunDir
from bocr_onnx.progress import Silent

pytestmark = pytest.mark.slow

CALIBRATION = files("bocr_onnx.calibration")
DEMO, DIGITS = str(CALIBRATION / "demo.onnx"), str(CALIBRATION / "digits.npz")
QUICK = {
    **{"flops": 0.4, "data": DIGITS, "search": "local", "trials": 6, "finetune": 0.4, "rounds": 2, "round_to": 1},
    **{"score_images": 200, "recovery_images": 150, "final_images": 300},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("steps")
    return folder, bocr_onnx.prune(DEMO, output=folder / "slim.onnx", **QUICK)


def test_the_budget_holds_for_the_original_and_the_proof_too(whole):
    folder, report = whole
    assert 0.35 < report.result.macs / report.baseline.macs <= 0.4 * 1.001
    assert report.proof["passed"]
    assert report.result.accuracy > 0.9
    assert report.search["trials"] == 6
    assert [r["trials"] for r in report.search["rounds"]] == [3, 3]
    rounds = [json.loads((folder / "slim.run" / f"step_{k}" / "report.json").read_text()) for k in (1, 2)]
    assert rounds[0]["result"]["macs"] / report.baseline.macs == pytest.approx(0.4**0.5, abs=0.02)
    assert rounds[1]["result"]["macs"] == report.result.macs
    assert rounds[1]["baseline"]["macs"] == rounds[0]["result"]["macs"]


def test_the_plan_is_one_of_the_original(whole, tmp_path):
    folder, report = whole
    again = bocr_onnx.apply(DEMO, folder / "slim.run" / "plan.json", tmp_path / "again.onnx")
    assert again.result.macs == report.result.macs
    assert [g.n_kept for g in report.groups] == [
        len(g["kept"]) for g in json.loads((folder / "slim.run" / "plan.json").read_text())["groups"]
    ]


def test_a_run_that_was_cut_off_in_its_second_round_goes_on(whole, tmp_path):
    _, report = whole

    class Impatient(Silent):
        n_rounds = 0

        def note(self, text):
            if text == "round 2 of 2":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bocr_onnx.prune(DEMO, output=tmp_path / "slim.onnx", progress=Impatient(), **QUICK)
    first = tmp_path / "slim.run" / "step_1" / "report.json"
    written = first.stat().st_mtime_ns
    again = bocr_onnx.prune(DEMO, resume=tmp_path / "slim.run")
    assert first.stat().st_mtime_ns == written
    assert again.result.macs == report.result.macs
    assert again.groups == report.groups
    assert again.result.accuracy == report.result.accuracy


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": 0}, "`rounds` must be at least 1"),
        ({"rounds": 4}, "`trials` must be at least 8 for `search=local` in 4 rounds"),
        ({"data": None, "search": "uniform", "finetune": 0}, "`rounds` must have images"),
    ],
)
def test_what_cannot_be_done_in_rounds_is_refused(changes, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        bocr_onnx.prune(DEMO, output=tmp_path / "slim.onnx", **(QUICK | changes))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """The options of three rounds to a fifth, of which the first two kept more and less than they were asked to."""
    folder = tmp_path_factory.mktemp("parts")
    given = {"flops": 0.2, "size": 0.5, "data": DIGITS, "preset": "digits", "output": folder / "slim.onnx"}
    asked = PruneOptions(DEMO, **given, trials=11, rounds=3)
    (run,) = prepare(asked)
    whole = run.cost.cost(run.cost.full)
    made, last = [], None
    for number, (macs, size) in enumerate([(0.6, 0.8), (0.3, 0.7), (0, 0)], start=1):
        made.append(part_of(run, number, last, RunDir(folder / f"step_{number}")))
        result = {"macs": macs * whole.macs, "params": whole.params, "size_bytes": size * whole.size_bytes}
        last = {"result": result}
    return folder, made


def test_a_round_is_asked_for_what_leads_to_its_share_of_the_original(parts):
    _, made = parts
    shares = [(part.flops[0], part.size[0]) for part in made]
    expected = [
        (0.2 ** (1 / 3), 0.5 ** (1 / 3)),
        (0.2 ** (2 / 3) / 0.6, 0.5 ** (2 / 3) / 0.8),
        (0.2 / 0.3, 0.5 / 0.7),
    ]
    assert np.allclose(shares, expected)
    assert [part.budgets[0].get("params") for part in made] == [None] * 3


def test_rounds_share_the_trials(parts):
    _, made = parts
    assert [part.trials for part in made] == [4, 4, 3]
    assert [part.rounds for part in made] == [1] * 3


def test_a_round_begins_with_the_file_of_the_one_before(whole):
    folder, _ = whole
    steps = folder / "slim.run"
    header = json.loads((steps / "step_2" / "journal.jsonl").read_text().splitlines()[0])["header"]
    assert header["model_sha256"] == hashlib.sha256((steps / "step_1" / "slim.onnx").read_bytes()).hexdigest()


def test_images_are_loaded_and_the_original_is_scored_once(tmp_path):
    steps = []

    class Counting(Silent):
        @contextmanager
        def task(self, description):
            steps.append(description)
            yield lambda done, total, detail="": None

    asked = QUICK | {"finetune": 0, "search": "sensitivity"}
    bocr_onnx.prune(DEMO, output=tmp_path / "slim.onnx", progress=Counting(), **asked)
    once = [
        "Loading images",
        "Scoring the original on unseen images",
        "Measuring latency",
        "Scoring the result on unseen images",
    ]
    assert [steps.count(text) for text in once] == [1] * 4
    assert steps.count("Proving the cut") == 3


def test_the_default_search_goes_in_rounds_and_its_page_can_be_made(tmp_path):
    """The last report is one of the original, on which nothing was measured in the end."""
    given = QUICK | {"search": "bocr", "finetune": 0, "recover": "oneshot", "score_images": 100}
    report = bocr_onnx.prune(DEMO, output=tmp_path / "s.onnx", **given)
    assert "tree" not in report.search
    assert len(json.loads((tmp_path / "s.run" / "step_1" / "report.json").read_text())["search"]["tree"]) > 1
    assert bocr_onnx.write_report(tmp_path / "s.run").exists()
