"""What a search has tried: records only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np

from bocr_onnx.cost import Widths


class TrialState(Enum):
    """PROPOSED, then one of the others."""

    PROPOSED = "proposed"
    COMPLETE = "complete"
    INFEASIBLE = "infeasible"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What scoring a policy gives.

    Attributes:
        score: Shown to people: a share of images in [0, 1].
        objective: What the search maximizes; finer than the score.
        seconds: Wall time.
    """

    score: float
    objective: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Trial:
    """One executed policy.

    Attributes:
        number: From 0.
        widths: Kept channels of every group.
        state: How it ended.
        score: Share of images, None unless COMPLETE.
        objective: What the search maximizes, None unless COMPLETE.
        seconds: Wall time of the evaluation.
        origin: Which part of the strategy proposed it.
        reason: Why it was INFEASIBLE or FAILED.
    """

    number: int
    widths: tuple[int, ...]
    state: TrialState
    score: float | None = None
    objective: float | None = None
    seconds: float = 0.0
    origin: str = ""
    reason: str = ""


class Scorer(Protocol):
    """Scores an executed policy."""

    def __call__(self, widths: Widths) -> Evaluation:
        """Returns score and objective of the policy that keeps these widths, shape `(n_groups,)`."""
        ...


def completed(trials: tuple[Trial, ...]) -> tuple[Trial, ...]:
    """Returns the trials that have a score."""
    return tuple(t for t in trials if t.state is TrialState.COMPLETE)


def best_trial(trials: tuple[Trial, ...]) -> Trial | None:
    """Returns the completed trial with the highest objective, the earlier one on a tie, or None."""
    return max(completed(trials), key=lambda t: (t.objective or 0.0, -t.number), default=None)


def ratios(trials: tuple[Trial, ...], full: Widths) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Returns the executed keep ratios, shape `(n_trials, n_groups)`."""
    return np.array([t.widths for t in trials], dtype=np.float64).reshape(len(trials), len(full)) / full
