"""The records of finetuning: what happens on the way, what came out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnx import ModelProto


@dataclass(frozen=True, slots=True)
class StepReport:
    """One step.

    Attributes:
        step: Counted from 1.
        n_steps: In all.
        epoch: Epochs done after this step.
        loss: Loss of the batch.
        learning_rate: Used by this step.
        elapsed_s: Since the start of training.
        images_per_s: Over the steps so far.
    """

    step: int
    n_steps: int
    epoch: float
    loss: float
    learning_rate: float
    elapsed_s: float
    images_per_s: float


@dataclass(frozen=True, slots=True)
class EpochReport:
    """One candidate: the student as given, or after an epoch.

    Attributes:
        epoch: Epochs done; 0 for the student as given.
        loss: Mean over the steps since the last report; None for the student as given.
        score: Score of `validate`, larger is better; None without it.
    """

    epoch: float
    loss: float | None
    score: float | None


@dataclass(frozen=True, slots=True)
class Hooks:
    """What is called during a training.

    Attributes:
        on_step: Called after every step.
        on_epoch: Called with every candidate.
        validate: Scores a candidate, larger is better; called on the student as given and after every epoch.
    """

    on_step: Callable[[StepReport], None] | None = None
    on_epoch: Callable[[EpochReport], None] | None = None
    validate: Callable[[ModelProto], float] | None = None


@dataclass(frozen=True, slots=True)
class FinetuneResult:
    """What came out.

    Attributes:
        proto: The best candidate, the earliest among equals; without `validate` the last finite one.
        epochs_done: Passes over the images that were made.
        best_score: Score of `proto`; None without `validate`.
        history: Every candidate, the student as given first.
        stopped: Why training ended early; empty where it did not.
    """

    proto: ModelProto
    epochs_done: float
    best_score: float | None
    history: tuple[EpochReport, ...]
    stopped: str = ""
