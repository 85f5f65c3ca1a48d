"""Options of finetuning; `bocr_onnx.training` reads them as they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from bocr_onnx.options.record import Flag, record
from bocr_onnx.options.types import DEVICES, LOSS, MAX_EPOCHS, OPTIMIZER, Seed

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]


@record
class FinetuneSettings:
    """How to finetune: linear warm-up, then a cosine to zero.

    Raises:
        UsageError: A value is out of range.
    """

    epochs: Annotated[
        float,
        Field(gt=0, le=MAX_EPOCHS),
        Flag("Passes over the training images; fractions are allowed, and at least one step is taken."),
    ] = 1.0
    patience: Annotated[
        int, Field(ge=0), Flag("Stop after this many epochs without a better score; 0 never stops early.")
    ] = 0
    seed: Annotated[Seed, Flag("Random seed; the same seed gives the same weights (on one CPU).")] = 0
    normalize: Annotated[bool, Flag("Restore folded BatchNormalization during training.")] = True
    label_weight: Annotated[Share, Flag("Weight of the label loss; the distillation loss gets the rest.", LOSS)] = 0.3
    label_smoothing: Annotated[BelowOne, Flag("Label smoothing.", LOSS)] = 0.0
    temperature: Annotated[Positive, Flag("Distillation temperature.", LOSS)] = 4.0
    feature_weight: Annotated[
        NotNegative, Flag("Weight of the distillation loss on uncut feature maps; 0 disables it.", LOSS)
    ] = 0.0
    optimizer: Annotated[
        Literal["auto", "sgd", "adamw"],
        Flag("Optimizer; SGD uses Nesterov momentum. auto is sgd for classifiers, adamw for other tasks.", OPTIMIZER),
    ] = "auto"
    learning_rate: Annotated[
        Positive | None,
        Flag("Peak learning rate; if not given 0.002 for adamw, for sgd 0.05, less under two epochs.", OPTIMIZER),
    ] = None
    momentum: Annotated[BelowOne, Flag("Momentum of SGD.", OPTIMIZER)] = 0.9
    weight_decay: Annotated[
        NotNegative, Flag("Weight decay; of weights only, not of norms, biases and slopes.", OPTIMIZER)
    ] = 1e-4
    warmup: Annotated[Share, Flag("Fraction of steps during which the learning rate rises.", OPTIMIZER)] = 0.1
    grad_clip: Annotated[NotNegative, Flag("Maximum gradient norm; 0 disables clipping.", OPTIMIZER)] = 1.0
    average: Annotated[
        BelowOne,
        Flag("Decay of the moving average of weights, which is then scored and kept; 0 disables it.", OPTIMIZER),
    ] = 0.0
    batch_size: Annotated[
        int, Field(ge=1), Flag("Images per step over all devices; a fixed batch of the model wins.", OPTIMIZER)
    ] = 128
    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"], Flag("Device; auto takes a GPU where there is one.", DEVICES)
    ] = "auto"
    devices: Annotated[int, Field(ge=1), Flag("Number of devices; each has its own process.", DEVICES)] = 1
    precision: Annotated[
        Literal["auto", "32-true", "bf16-mixed", "16-mixed"],
        Flag("Precision; auto is bf16-mixed on CUDA, 32-true elsewhere.", DEVICES),
    ] = "auto"

    def settled(self, *, classes: bool = True) -> FinetuneSettings:
        """Returns the settings with an optimizer and a learning rate, where they leave these open.

        Args:
            classes: Whether a classifier is trained. Cross-entropy takes the large steps of SGD; distances of outputs,
                which a recovered model has made small already, do not; nor does a short training, which has no time
                to mend what a large step breaks.
        """
        optimizer = ("sgd" if classes else "adamw") if self.optimizer == "auto" else self.optimizer
        rate = RATES[optimizer] * (min(1.0, max(LEAST_RATE, self.epochs / LONG)) if optimizer == "sgd" else 1.0)
        return replace(self, optimizer=optimizer, learning_rate=self.learning_rate or rate)


RATES = {"sgd": 0.05, "adamw": 0.002}
"""Peak learning rates that are taken where none is given, of SGD for a training that is long enough."""

LONG, LEAST_RATE = 2.0, 0.2
"""Epochs from which SGD takes its full rate; the share of it that any training takes, however short."""
