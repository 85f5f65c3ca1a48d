"""The candidates of a training and the best of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import onnx
from onnx import ModelProto

from bocr_onnx.training.records import EpochReport, FinetuneResult


class Candidates:
    """Every model that was scored; the earliest among equals is the best.

    Args:
        validate: Scores a model, larger is better; None where nothing is scored, then the last one counts.
    """

    def __init__(self, validate: Callable[[ModelProto], float] | None) -> None:
        self.validate = validate
        self.history: list[EpochReport] = []
        self.best: ModelProto | None = None
        self.best_score: float | None = None
        self.since_best = 0

    def add(self, proto: ModelProto, epoch: float, losses: list[float]) -> EpochReport:
        """Takes a candidate in; a score that is not a number never wins."""
        score = self.validate(proto) if self.validate else None
        self.history.append(EpochReport(epoch, sum(losses) / len(losses) if losses else None, score))
        self.since_best += 1
        if self.best is None or score is None or self.best_score is None or _beats(score, self.best_score):
            self.best, self.best_score, self.since_best = proto, score, 0
        return self.history[-1]

    def result(self, unchanged: ModelProto, epochs_done: float, stopped: str) -> FinetuneResult:
        """Returns the frozen record; the student as given where nothing was scored."""
        best = unchanged if self.best is None else self.best
        return FinetuneResult(best, epochs_done, self.best_score, tuple(self.history), stopped)

    def state(self) -> dict[str, Any]:
        """Returns what `load` takes: numbers, lists and the bytes of the best model."""
        return {
            "history": [asdict(report) for report in self.history],
            "best": None if self.best is None else self.best.SerializeToString(),
            "best_score": self.best_score,
            "since_best": self.since_best,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken."""
        self.history = [EpochReport(**report) for report in state["history"]]
        self.best = None if state["best"] is None else onnx.load_model_from_string(state["best"])
        self.best_score, self.since_best = state["best_score"], state["since_best"]


def _beats(score: float, best: float) -> bool:
    return score > best or (math.isnan(best) and not math.isnan(score))
