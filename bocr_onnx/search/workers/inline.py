"""Trials in this process, one after the other."""

from __future__ import annotations

from collections import deque

from bocr_onnx.search.trial import Scorer
from bocr_onnx.search.workers.records import Job, Outcome, run_job


class Inline:
    """Runs each job when its outcome is asked for.

    Args:
        scorer: Scores policies.
    """

    n_workers = 1

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._jobs: deque[Job] = deque()

    def submit(self, job: Job) -> None:
        """Takes a job."""
        self._jobs.append(job)

    def collect(self) -> Outcome:
        """Returns the outcome of the oldest job."""
        return run_job(self._scorer, self._jobs.popleft())

    def close(self) -> None:
        """Forgets what has not run."""
        self._jobs.clear()
