"""What a search maximizes: minus the logarithm of the distortion, after the fast recovery."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import bocr_onnx
from bocr_onnx.errors import ModelError
from bocr_onnx.pipeline.search import TrialScorer, _trial_scorer
from bocr_onnx.recovery.scorer import ScoredModel
from bocr_onnx.tasks.score import Score

CALIBRATION = files("bocr_onnx.calibration")
DEMO, DIGITS = str(CALIBRATION / "demo.onnx"), str(CALIBRATION / "digits.npz")
WIDTHS = np.array([3, 4])


@dataclass
class Told:
    """Stands in for a scorer of policies, and stops after the first slice as one does."""

    first: float = 0.25
    whole: float = 0.5
    threads: int = 0
    asked: list[tuple[Any, ...]] = field(default_factory=list)

    def score(self, widths: npt.NDArray[np.int64], recovery: str, *, ceiling: float | None) -> tuple[ScoredModel, Any]:
        self.asked.append((widths.tolist(), recovery, ceiling))
        whole = self.whole if ceiling is None or self.first <= ceiling else None
        return ScoredModel(Score(0.75, 40), whole, self.first, 1.5), {}


def test_less_distortion_is_a_larger_objective() -> None:
    told: Any = Told()
    found = TrialScorer(told, "oneshot")(WIDTHS, None)
    assert found.objective == pytest.approx(math.log(2))
    assert found.first == pytest.approx(math.log(4))
    assert (found.score, found.seconds) == (0.75, 1.5)
    told = Told(first=0.0, whole=0.0)
    perfect = TrialScorer(told, "oneshot")(WIDTHS, None)
    assert found.objective is not None
    assert perfect.objective is not None
    assert found.objective < perfect.objective < math.inf


@pytest.mark.parametrize(("share", "stopped"), [(0.99, False), (1.01, True)])
def test_a_trial_whose_first_slice_is_below_the_floor_is_stopped(share: float, stopped: bool) -> None:
    told: Any = Told()
    found = TrialScorer(told, "oneshot")(WIDTHS, share * math.log(4))
    assert told.asked == [([3, 4], "oneshot", pytest.approx(0.25 ** (share)))]
    assert (found.objective is None) == stopped
    assert found.first == pytest.approx(math.log(4))


@pytest.mark.parametrize(("recover", "expected"), [("none", "none"), ("oneshot", "oneshot"), ("sequential", "oneshot")])
def test_trials_are_recovered_as_the_result_is_but_quickly(recover: str, expected: str) -> None:
    told: Any = Told()
    run: Any = SimpleNamespace(options=SimpleNamespace(ray=None, workers=1, recover=recover))
    made = _trial_scorer(run, told)
    assert made.recovery == expected
    assert made.scorer is told


@pytest.mark.parametrize(
    ("ray", "workers", "threads"), [(None, 1, 0), ("auto", 1, 1), ("auto", 4, 1), (None, 10_000, 1)]
)
def test_trials_that_run_at_once_share_the_cores(ray: str | None, workers: int, threads: int) -> None:
    run: Any = SimpleNamespace(options=SimpleNamespace(ray=ray, workers=workers, recover="oneshot"))
    told: Any = Told()
    assert _trial_scorer(run, told).scorer.threads == threads


def test_a_search_whose_trials_all_fail_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise ModelError("out of memory")

    monkeypatch.setattr(TrialScorer, "__call__", fails)
    given: dict[str, Any] = {"data": DIGITS, "flops": 0.5, "trials": 2, "history": "none"}
    with pytest.raises(ModelError, match=r"all 2 trials failed; the first one with: .*out of memory"):
        bocr_onnx.prune(DEMO, output=tmp_path / "slim.onnx", **given)
