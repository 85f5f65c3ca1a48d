"""What goes to a worker and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bocr_onnx.errors import BocrError
from bocr_onnx.search.trial import Evaluation, Scorer

LOST_TWICE = "its worker was lost twice"


@dataclass(frozen=True, slots=True)
class Job:
    """A trial to run.

    Attributes:
        number: Number of the trial.
        widths: Kept channels of every group.
        floor: Objective on the first slice of images below which it is stopped.
    """

    number: int
    widths: tuple[int, ...]
    floor: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A trial that ended.

    Attributes:
        number: Number of the trial.
        evaluation: None where it failed.
        reason: Why it failed.
    """

    number: int
    evaluation: Evaluation | None
    reason: str = ""


class Workers(Protocol):
    """Runs jobs, `n_workers` at a time, and hands back outcomes in the order they end."""

    @property
    def n_workers(self) -> int:
        """Returns how many jobs run at once."""
        ...

    def submit(self, job: Job) -> None:
        """Takes a job; returns at once or when it has ended."""
        ...

    def collect(self) -> Outcome:
        """Returns the next outcome; waits for it. A job was submitted for it before."""
        ...

    def close(self) -> None:
        """Ends what still runs."""
        ...


def run_job(scorer: Scorer, job: Job) -> Outcome:
    """Returns the outcome of a job; an error the trial is responsible for becomes its reason."""
    try:
        return Outcome(job.number, scorer(np.array(job.widths, dtype=np.int64), job.floor))
    except (BocrError, MemoryError, np.linalg.LinAlgError) as error:
        return Outcome(job.number, None, str(error) or type(error).__name__)
