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
        seconds: Duration of every trial.
        once: Policies that kill the process the first time.
        always: Policies that kill it every time.
        notes: Folder where every policy notes the process that takes it, after its parent.
        gate: All trials wait for this file.
    """

    full: np.ndarray
    seconds: float = 0.0
    once: tuple[tuple[int, ...], ...] = ()
    always: tuple[tuple[int, ...], ...] = ()
    notes: Path | None = None
    gate: Path | None = None

    def __call__(self, widths, floor=None):
        policy = tuple(int(w) for w in widths)
        self._raise(policy[0])
        first = self._note("-".join(map(str, policy)))
        if policy in self.always or (policy in self.once and first):
            os.kill(os.getpid(), signal.SIGKILL)
        while self.gate and not self.gate.exists():
            time.sleep(0.05)
        time.sleep(self.seconds)
        weight = np.linspace(0.3, 2.0, len(widths))
        error = float(np.sum(weight * (1 - widths / self.full) ** 2))
        objective = -float(np.log(error + 1e-9))
        return Evaluation(1 / (1 + error), objective, objective, float(os.getpid()))

    def _note(self, name):
        if self.notes is None:
            return False
        first = not (self.notes / name).exists()
        (self.notes / name).write_text(f"{os.getppid()} {os.getpid()}")
        return first

    def _raise(self, first):
        if first == MODEL:
            raise ModelError("the session must run, got nothing", hint="Try again.")
        if first == MEMORY:
            raise MemoryError
        if first == BUG:
            raise ZeroDivisionError("a bug")
        if first == AWKWARD:
            raise AwkwardError(1, 2)
