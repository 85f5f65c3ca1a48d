"""Every deliberate exception of bocr-onnx.

The tree::

    BocrError                a user can act on it; the command line prints it without a traceback, exit 2
    ├── UsageError           an argument is wrong: unknown name, value out of range
    ├── ModelError           the ONNX file cannot be read, is invalid, or misses its external data
    ├── DataError            images, labels or preprocessing are wrong
    ├── PlanError            a plan is malformed or belongs to another model
    ├── BudgetError          no plan reaches the budget
    ├── OutputError          the result cannot be written where it was asked for
    ├── ProofError           the slim model differs from the masked original: nothing is written
    ├── ResumeError          a run directory cannot be continued
    ├── HistoryError         the history file cannot be used
    ├── DeviceError          a device cannot be reached, is lost, or lacks something
    ├── TaskError            a task of the user's own raises, or returns what it must not
    └── TrainingError        the model cannot be finetuned

Anything else that escapes is a bug of bocr-onnx and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BocrError(Exception):
    """An error the user can act on.

    Args:
        message: ``<subject> must <condition>, got <value>``, naming file, node and tensor.
        hint: What to do about it; a command that works when pasted where there is one.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class UsageError(BocrError):
    """An argument is wrong."""


class ModelError(BocrError):
    """The ONNX file cannot be used."""


class DataError(BocrError):
    """Images, labels or preprocessing cannot be used."""


class PlanError(BocrError):
    """A plan is malformed or belongs to another model."""


class BudgetError(BocrError):
    """No plan reaches the budget."""


class OutputError(BocrError):
    """The result cannot be written where it was asked for."""


class ProofError(BocrError):
    """The slim model differs from the masked original."""


class ResumeError(BocrError):
    """A run directory cannot be continued."""


class HistoryError(BocrError):
    """The history file cannot be used."""


class DeviceError(BocrError):
    """A device cannot be reached, is lost, or lacks something."""


class TaskError(BocrError):
    """A task of the user's own raises, or returns what it must not."""


class TrainingError(BocrError):
    """The model cannot be finetuned."""


def shortened(value: object, most: int = 60) -> str:
    """Returns how a value is shown in an error: not all of its 400 digits.

    Example:
        >>> shortened([0] * 100, 7)
        '[0, 0, ... (300 long)'
    """
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # more digits than Python prints, or brackets
        return f"a {type(value).__name__} too long to show"
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} long)"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns a hint that names the nearest known names.

    Example:
        >>> did_you_mean("unifrom", ["bocr", "uniform", "random"])
        "Did you mean 'uniform'? Known: bocr, random, uniform."
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    first = f"Did you mean '{near[0]}'? " if near else ""
    return f"{first}Known: {', '.join(names)}."
