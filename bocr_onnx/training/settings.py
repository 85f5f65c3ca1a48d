"""The records of finetuning: what is asked for, what happens on the way, what came out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from onnx import ModelProto

from bocr_onnx.errors import UsageError, did_you_mean

Optimizer = Literal["sgd", "adamw"]
Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True, slots=True)
class FinetuneSettings:
    """How to finetune: linear warm-up, then a cosine to zero.

    Attributes:
        epochs: Passes over the images; fractions are allowed, and at least one step is taken.
        batch_size: Images per step, over all devices; a batch size fixed in the model takes precedence.
        optimizer: ``"sgd"`` with Nesterov momentum, or ``"adamw"``.
        learning_rate: Peak learning rate.
        momentum: Momentum of SGD.
        weight_decay: Applied to weights only, not to norms, biases and slopes.
        warmup: Fraction of steps during which the learning rate rises, in [0, 1].
        label_weight: Weight of the label loss, in [0, 1]; the distillation loss gets the rest (all without labels).
        label_smoothing: Label smoothing, in [0, 1).
        temperature: Distillation temperature.
        feature_weight: Weight of the distillation loss on feature maps that were not cut; 0 disables it.
        grad_clip: Maximum gradient norm; 0 disables clipping.
        average: Decay per step of the moving average of weights, which is then what is scored and kept; 0 disables it.
        normalize: Whether folded BatchNormalization is restored during training.
        patience: Training stops after this many epochs without a better score; 0 never stops early.
        seed: Seed for the order of images and the augmentation.
        device: Where torch computes: ``"auto"`` (a GPU where there is one), ``"cpu"``, ``"cuda"`` or ``"mps"``.
        devices: Number of devices; the engine starts the same command line again for each additional one.
        precision: ``"auto"`` is bfloat16 mixed with float32 on CUDA, float32 elsewhere.

    Raises:
        UsageError: A value is out of range.
    """

    epochs: float = 1.0
    batch_size: int = 128
    optimizer: Optimizer = "sgd"
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup: float = 0.1
    label_weight: float = 0.3
    label_smoothing: float = 0.0
    temperature: float = 4.0
    feature_weight: float = 0.0
    grad_clip: float = 1.0
    average: float = 0.0
    normalize: bool = True
    patience: int = 0
    seed: int = 0
    device: str = "auto"
    devices: int = 1
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "temperature", "devices"):
            _require(getattr(self, name) > 0, f"finetuning's {name} must be positive", getattr(self, name))
        for name in ("weight_decay", "grad_clip", "feature_weight", "patience"):
            _require(getattr(self, name) >= 0, f"finetuning's {name} must not be negative", getattr(self, name))
        for name in ("warmup", "label_weight"):
            _require(0 <= getattr(self, name) <= 1, f"finetuning's {name} must lie in 0..1", getattr(self, name))
        for name in ("momentum", "label_smoothing", "average"):
            _require(0 <= getattr(self, name) < 1, f"finetuning's {name} must lie in [0, 1)", getattr(self, name))
        for name, known in _KNOWN.items():
            if getattr(self, name) not in known:
                raise UsageError(
                    f"finetuning's {name} must be one of {', '.join(known)}, got {getattr(self, name)!r}",
                    hint=did_you_mean(str(getattr(self, name)), known),
                )


_KNOWN = {
    "optimizer": get_args(Optimizer),
    "precision": get_args(Precision),
    "device": ("auto", "cpu", "cuda", "mps"),
}


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
