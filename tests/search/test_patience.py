"""A search that gains nothing any more stops, and says so; a resumed one stops where an uninterrupted one does."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bocr_onnx
from bocr_onnx.progress import Silent
from bocr_onnx.search import Evaluation, Inline, Journal, Problem, Trial, TrialState, search
from bocr_onnx.search.loop import GAIN, stalled
from bocr_onnx.search.strategies import STRATEGIES
from tests.search.problems import problem

DEMO = str(files("bocr_onnx.calibration") / "demo.onnx")
DIGITS = str(files("bocr_onnx.calibration") / "digits.npz")


def trials(*objectives: float | None) -> tuple[Trial, ...]:
    return tuple(
        Trial(i, (1,), TrialState.STOPPED if o is None else TrialState.COMPLETE, 0.5, o)
        for i, o in enumerate(objectives)
    )


@pytest.mark.parametrize(
    ("objectives", "expected"),
    [((), 0), ((1.0,), 0), ((1.0, 0.5, 0.9), 2), ((1.0, None, 1.0 + 2 * GAIN), 0), ((1.0, 1.0 + GAIN / 2), 1),
     ((1.0, 1.0 + GAIN / 2, 1.0 + 1.5 * GAIN), 0), ((None, None), 2)],
)  # fmt: skip
def test_small_gains_count_once_they_add_up(objectives: Any, expected: int) -> None:
    assert stalled(trials(*objectives)) == expected


def searched(asked: Problem, path: Path, values: Any, n: int | None = None) -> tuple[Trial, ...]:
    """Returns the trials of a search whose objectives are given in their order; it is cut off after `n`."""
    journal = Journal(path, {})
    given = iter(values[len(journal.trials) :])

    def score(widths: Any, floor: Any = None) -> Evaluation:
        if n is not None and len(journal.trials) >= n:
            raise KeyboardInterrupt
        value = next(given)
        return Evaluation(0.5, value, value, 0.0)

    return search(asked, STRATEGIES["local"].strategy, Inline(score), journal, race=False).trials


def test_it_stops_after_so_many_without_a_gain_and_resumes_alike(tmp_path: Path) -> None:
    asked = replace(problem(n_trials=30), patience=6)
    values = [0.0, 0.1, 0.2, 0.3, *np.linspace(0.3, 0.3 + GAIN / 2, 26)]
    whole = searched(asked, tmp_path / "whole.jsonl", values)
    assert len(whole) == 10
    searched(asked, tmp_path / "parts.jsonl", values, n=5)
    resumed = searched(asked, tmp_path / "parts.jsonl", values)
    assert [t.widths for t in resumed] == [t.widths for t in whole]
    assert len(searched(replace(asked, patience=0), tmp_path / "all.jsonl", values)) == 30


class Telling(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, text: str) -> None:
        self.told.append(text)


@pytest.mark.parametrize(("name", "stops"), [("bocr", True), ("amc", False)])
def test_the_run_says_so(name: Any, stops: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strategies with a schedule of all their trials go on."""
    monkeypatch.setattr("bocr_onnx.search.loop.GAIN", 1e9)
    progress = Telling()
    report = bocr_onnx.prune(
        DEMO, flops=0.5, search=name, trials=8, patience=3, recover="oneshot", history="none", data=DIGITS,
        score_images=120, recovery_images=100, final_images=100, output=tmp_path / "s.onnx", progress=progress,
    )  # fmt: skip
    assert report.search["trials"] == (4 if stops else 8)
    assert report.search["asked_trials"] == 8
    assert any("search ended after 4 of 8 trials" in text for text in progress.told) == stops
