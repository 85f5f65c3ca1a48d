"""What a search has tried: records only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol

import numpy as np

from bocr_onnx.cost import Widths


class TrialState(Enum):
    """PROPOSED, then one of the others."""

    PROPOSED = "proposed"
    COMPLETE = "complete"
    STOPPED = "stopped"
    INFEASIBLE = "infeasible"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What scoring a policy gives.

    Attributes:
        score: Shown to people: a share of images in [0, 1].
        objective: What the search maximizes, on all images; finer than the score. None where the trial was stopped.
        first: The objective on the first slice of images.
        seconds: Wall time.
    """

    score: float
    objective: float | None
    first: float
    seconds: float


class Proposal(NamedTuple):
    """What a strategy wants to try: widths, shape `(n_groups,)`, and which part of it says so."""

    widths: Widths
    origin: str


@dataclass(frozen=True, slots=True)
class Trial:
    """One executed policy.

    Attributes:
        number: From 0.
        widths: Kept channels of every group.
        state: How it ended.
        score: Share of images: all where COMPLETE, the first slice where STOPPED, else None.
        objective: What the search maximizes, None unless COMPLETE.
        seconds: Wall time of the evaluation.
        origin: Which part of the strategy proposed it.
        reason: Why it was STOPPED, INFEASIBLE or FAILED.
        first: The objective on the first slice of images, None unless COMPLETE or STOPPED.
        proposal_s: Wall time of the strategy that proposed it.
    """

    number: int
    widths: tuple[int, ...]
    state: TrialState
    score: float | None = None
    objective: float | None = None
    seconds: float = 0.0
    origin: str = ""
    reason: str = ""
    first: float | None = None
    proposal_s: float = 0.0


class Scorer(Protocol):
    """Scores an executed policy; where trials run in other processes it is pickled to them."""

    def __call__(self, widths: Widths, floor: float | None) -> Evaluation:
        """Returns the evaluation of the policy that keeps these widths, shape `(n_groups,)`.

        Args:
            widths: Kept channels per group.
            floor: The trial is stopped where its objective on the first slice of images is below it.
        """
        ...


def is_sound(trial: Trial) -> bool:
    """Returns whether a trial that was read from a file has what its state promises, and numbers that are ones."""
    needed = {TrialState.COMPLETE: (trial.objective, trial.score), TrialState.STOPPED: (trial.first, trial.score)}
    values = (trial.score, trial.objective, trial.first)
    return (
        trial.number >= 0
        and all(v is None or math.isfinite(v) for v in values)
        and None not in needed.get(trial.state, ())
        and (trial.score is None or 0 <= trial.score <= 1)
    )


def completed(trials: tuple[Trial, ...]) -> tuple[Trial, ...]:
    """Returns the trials that were scored on all images."""
    return tuple(t for t in trials if t.state is TrialState.COMPLETE)


def scored(trials: tuple[Trial, ...]) -> tuple[Trial, ...]:
    """Returns the trials that were scored on all images or on the first slice."""
    return tuple(t for t in trials if t.state in (TrialState.COMPLETE, TrialState.STOPPED))


def best_trial(trials: tuple[Trial, ...]) -> Trial | None:
    """Returns the completed trial with the highest objective, the earlier one on a tie, or None."""
    return max(completed(trials), key=lambda t: (t.objective or 0.0, -t.number), default=None)


def ratios(trials: tuple[Trial, ...], full: Widths) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Returns the executed keep ratios, shape `(n_trials, n_groups)`."""
    return np.array([t.widths for t in trials], dtype=np.float64).reshape(len(trials), len(full)) / full
