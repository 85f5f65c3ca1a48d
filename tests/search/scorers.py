"""Scorers that travel to other processes, and what can go wrong with them there."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bocr_onnx.errors import ModelError
from bocr_onnx.search import Evaluation

MODEL, MEMORY, BUG, AWKWARD = -1, -2, -3, -4
"""In place of the kept channels of the first group: raises."""


class AwkwardError(Exception):
    """Pickles, and cannot be read back."""

    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


@dataclass(frozen=True)
class Chain:
    """The truth about `problems.problem`; some policies take long, raise, or kill the process.

    Attributes:
        full: Channels of every group.
        seconds: Of every trial.
        once: Policies that kill the process the first time.
        always: Policies that kill it every time.
        notes: Folder that tells the first time.
    """

    full: np.ndarray
    seconds: float = 0.0
    once: tuple[tuple[int, ...], ...] = ()
    always: tuple[tuple[int, ...], ...] = ()
    notes: Path = Path()

    def __call__(self, widths, floor=None):
        policy = tuple(int(w) for w in widths)
        self._raise(policy[0])
        note = self.notes / "-".join(map(str, policy))
        if policy in self.always or (policy in self.once and not note.exists()):
            note.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        weight = np.linspace(0.3, 2.0, len(widths))
        error = float(np.sum(weight * (1 - widths / self.full) ** 2))
        objective = -float(np.log(error + 1e-9))
        return Evaluation(1 / (1 + error), objective, objective, float(os.getpid()))

    def _raise(self, first):
        if first == MODEL:
            raise ModelError("the session must run, got nothing", hint="Try again.")
        if first == MEMORY:
            raise MemoryError
        if first == BUG:
            raise ZeroDivisionError("a bug")
        if first == AWKWARD:
            raise AwkwardError(1, 2)
