"""The records of finetuning: what is asked for, what happens on the way, what came out."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import ModelProto

from bocr_onnx.errors import UsageError


@dataclass(frozen=True, slots=True)
class FinetuneSettings:
    """How to finetune: SGD with Nesterov momentum, linear warm-up, then a cosine to zero.

    Attributes:
        epochs: Passes over the images; parts of one count, at least one step is taken.
        batch_size: Images per step; a batch baked into the model goes first.
        learning_rate: At the peak.
        momentum: Of SGD.
        weight_decay: On weights only; norms, biases and slopes are left alone.
        warmup: Share of the steps in which the learning rate rises.
        label_weight: Share of the labels in the loss, in 0..1; the teacher has the rest (all without labels).
        temperature: Divides the logits of both in the teacher's term.
        grad_clip: Largest norm of the gradient; 0 switches clipping off.
        seed: Of the order of the images and of the augmentation.
        device: Where torch computes, e.g. ``"cpu"`` or ``"cuda"``.

    Raises:
        UsageError: A value is out of range.
    """

    epochs: float = 1.0
    batch_size: int = 128
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup: float = 0.1
    label_weight: float = 0.3
    temperature: float = 4.0
    grad_clip: float = 1.0
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "temperature"):
            _require(getattr(self, name) > 0, f"finetuning's {name} must be positive", getattr(self, name))
        for name in ("weight_decay", "grad_clip"):
            _require(getattr(self, name) >= 0, f"finetuning's {name} must not be negative", getattr(self, name))
        for name in ("warmup", "label_weight"):
            _require(0 <= getattr(self, name) <= 1, f"finetuning's {name} must lie in 0..1", getattr(self, name))
        _require(0 <= self.momentum < 1, "finetuning's momentum must lie in [0, 1)", self.momentum)


def _require(holds: bool, condition: str, found: object) -> None:
    if not holds:
        raise UsageError(f"{condition}, got {found!r}")


@dataclass(frozen=True, slots=True)
class StepReport:
    """One step.

    Attributes:
        step: Counted from 1.
        n_steps: In all.
        epoch: Epochs done after this step.
        loss: Of the batch.
        learning_rate: Used by this step.
        elapsed_s: Since the start of training.
    """

    step: int
    n_steps: int
    epoch: float
    loss: float
    learning_rate: float
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class EpochReport:
    """One candidate: the student as given, or after an epoch.

    Attributes:
        epoch: Epochs done; 0 for the student as given.
        loss: Mean over the steps since the last report; None for the student as given.
        score: Of `validate`, larger is better; None without it.
    """

    epoch: float
    loss: float | None
    score: float | None


@dataclass(frozen=True, slots=True)
class FinetuneResult:
    """What came out.

    Attributes:
        proto: The best candidate, the earliest among equals; without `validate` the last finite one.
        epochs_done: Passes over the images that were made.
        best_score: Of `proto`; None without `validate`.
        history: Every candidate, the student as given first.
        stopped: Why training ended early; empty where it did not.
    """

    proto: ModelProto
    epochs_done: float
    best_score: float | None
    history: tuple[EpochReport, ...]
    stopped: str = ""
