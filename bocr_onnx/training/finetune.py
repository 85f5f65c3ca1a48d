"""Finetuning a slim model towards its original: distillation, and labels where there are any."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch
from onnx import ModelProto
from torch import Tensor

from bocr_onnx.data.augmentation import Augmentation
from bocr_onnx.errors import DataError
from bocr_onnx.graph import Array, ModelGraph
from bocr_onnx.training.augment import augment
from bocr_onnx.training.interpreter import OnnxModule, export
from bocr_onnx.training.loss import finetune_loss, gives_probabilities
from bocr_onnx.training.operators.registry import to_tensor
from bocr_onnx.training.settings import EpochReport, FinetuneResult, FinetuneSettings, StepReport

MIN_STATISTICS_BATCH = 16
"""Smaller batches leave the running statistics of BatchNormalization as they are."""

_COLOURS = (1, 3, 4)


class Images(Protocol):
    """Preprocessed images by index: an array, a memory map, or anything that loads them when asked."""

    def __len__(self) -> int:
        """Returns how many there are."""
        ...

    def __getitem__(self, indices: Array, /) -> Array:
        """Returns float32 images, `(n, C, H, W)` or as the model reads them, for `(n,)` int64 indices."""
        ...


class _DivergedError(Exception):
    """The loss, its gradient or a weight is not finite."""


def finetune(
    student: ModelGraph,
    teacher: ModelGraph,
    images: Images,
    labels: Array | None = None,
    *,
    settings: FinetuneSettings | None = None,
    augmentation: Augmentation | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    validate: Callable[[ModelProto], float] | None = None,
) -> FinetuneResult:
    """Returns the student, trained to answer as the teacher does.

    The same seed gives the same result on the CPU of one machine at one number of threads. An interrupt
    (KeyboardInterrupt) ends training and keeps the best candidate so far.

    Args:
        student: The model to train.
        teacher: The model to follow; its inputs and outputs are those of the student.
        images: One per sample, for the only input.
        labels: Class per sample, shape `(N,)`; without them the teacher is all there is to learn from.
        settings: How; the defaults where None.
        augmentation: Random changes to the images; none where None.
        on_step: Called after every step.
        validate: Scores a candidate, larger is better; called on the student as given and after every epoch.

    Raises:
        DataError: There are no images, or the labels do not fit.
        TrainingError: An operator of either model cannot be trained.
    """
    settings = settings or FinetuneSettings()
    labels = _check(student, images, labels)
    run = _Run(student, teacher, settings, augmentation or Augmentation())
    record = _Record(validate)
    batch_size = _batch_size(student, teacher, len(images), settings)
    n_per_epoch = max(len(images) // batch_size, 1)
    n_steps = max(round(settings.epochs * n_per_epoch), 1)
    batches = _batches(len(images), batch_size, settings.seed)
    run.module.train(batch_size >= MIN_STATISTICS_BATCH)
    started = time.perf_counter()
    step, stopped, losses = 0, "", list[float]()
    try:
        record.add(student.proto, 0.0, losses)
        for step in range(1, n_steps + 1):
            chosen = next(batches)
            rate = learning_rate(step, n_steps, settings)
            losses.append(run.step(images[chosen], None if labels is None else labels[chosen], rate))
            epoch = step / n_per_epoch
            if on_step:
                on_step(StepReport(step, n_steps, epoch, losses[-1], rate, time.perf_counter() - started))
            if step % n_per_epoch == 0 or step == n_steps:
                run.require_finite()
                record.add(export(run.module, student), epoch, losses)
                losses = []
    except _DivergedError as error:
        stopped, step = f"step {step}: {error}", step - 1
    except KeyboardInterrupt:
        stopped, step = f"step {step}: interrupted", max(step - 1, 0)
        if validate is None and run.is_finite():
            record.add(export(run.module, student), step / n_per_epoch, losses)
    return record.result(student.proto, step / n_per_epoch, stopped)


def learning_rate(step: int, n_steps: int, settings: FinetuneSettings) -> float:
    """Returns the learning rate of a step counted from 1: a linear rise, then half a cosine.

    Example:
        >>> settings = FinetuneSettings(learning_rate=1.0, warmup=0.25)
        >>> [round(learning_rate(step, 8, settings), 2) for step in range(1, 9)]
        [0.5, 1.0, 0.93, 0.75, 0.5, 0.25, 0.07, 0.0]
    """
    n_warm = math.ceil(settings.warmup * n_steps)
    if step <= n_warm:
        return settings.learning_rate * step / n_warm
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - n_warm) / (n_steps - n_warm)))


class _Run:
    """The live state of one training: both modules, the optimizer, the generator."""

    def __init__(
        self, student: ModelGraph, teacher: ModelGraph, settings: FinetuneSettings, augmentation: Augmentation
    ) -> None:
        self.settings = settings
        self.augmentation = augmentation
        self.module = _place(OnnxModule(student), settings.device)
        self.teacher = _place(OnnxModule(teacher), settings.device).eval()
        self.probabilities = gives_probabilities(student, student.outputs[0])
        self.colours_last = _colours_last(student.shapes[student.inputs[0]])
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.optimizer = torch.optim.SGD(
            self.module.parameter_groups(settings.weight_decay),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            nesterov=settings.momentum > 0,
        )

    def step(self, images: Array, labels: Array | None, rate: float) -> float:
        """Takes one step and returns the loss before it.

        Raises:
            _DivergedError: The loss or the gradient is not finite; nothing was changed.
        """
        x = self._input(images)
        with torch.no_grad():
            wanted = self.teacher(x)
        y = None if labels is None else torch.from_numpy(labels).to(x.device)
        found = self.module(x)
        loss = finetune_loss(found, wanted, y, self.settings, probabilities=self.probabilities)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise _DivergedError(f"the loss became {value}")
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        clip = self.settings.grad_clip or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self.module.parameters(), clip))
        if not math.isfinite(norm):
            raise _DivergedError(f"the norm of the gradient became {norm}")
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return value

    def require_finite(self) -> None:
        """Checks the weights, which the last step may have spoilt without a loss that shows it.

        Raises:
            _DivergedError: A trained tensor is not finite.
        """
        if not self.is_finite():
            raise _DivergedError("a weight is no longer finite")

    def is_finite(self) -> bool:
        """Returns whether every trained tensor is finite."""
        return all(bool(torch.isfinite(t).all()) for _, t in self.module.named_initializers())

    def _input(self, images: Array) -> Tensor:
        x = to_tensor(images).to(self.settings.device)
        if x.dim() != 4:
            return x
        x = x.permute(0, 3, 1, 2) if self.colours_last else x
        x = augment(x, self.augmentation, self.generator)
        if self.colours_last:
            return x.permute(0, 2, 3, 1).contiguous()
        return x.contiguous(memory_format=torch.channels_last)


class _Record:
    """The candidates so far and the best of them."""

    def __init__(self, validate: Callable[[ModelProto], float] | None) -> None:
        self.validate = validate
        self.history: list[EpochReport] = []
        self.best: ModelProto | None = None
        self.best_score: float | None = None

    def add(self, proto: ModelProto, epoch: float, losses: list[float]) -> None:
        """Takes a candidate in; a score that is not a number never wins."""
        score = self.validate(proto) if self.validate else None
        self.history.append(EpochReport(epoch, sum(losses) / len(losses) if losses else None, score))
        if self.best is None or score is None or self.best_score is None or _beats(score, self.best_score):
            self.best, self.best_score = proto, score

    def result(self, unchanged: ModelProto, epochs_done: float, stopped: str) -> FinetuneResult:
        """Returns the frozen record; the student as given where nothing was scored."""
        best = unchanged if self.best is None else self.best
        return FinetuneResult(best, epochs_done, self.best_score, tuple(self.history), stopped)


def _beats(score: float, best: float) -> bool:
    return score > best or (math.isnan(best) and not math.isnan(score))


def _place(module: OnnxModule, device: str) -> OnnxModule:
    """Moves a module to a device, its convolution weights with the channels last, which trains faster."""
    return module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _check(student: ModelGraph, images: Images, labels: Array | None) -> Array | None:
    """Returns the labels as int64."""
    if len(student.inputs) != 1:
        raise DataError(f"{student.label} must have one input to be finetuned, got {list(student.inputs)}")
    if not len(images):
        raise DataError("finetuning must have images, got none")
    if labels is None:
        return None
    if labels.shape != (len(images),):
        raise DataError(f"labels must have shape {(len(images),)}, one per image, got {labels.shape}")
    n_classes = next((n for n in student.shapes.get(student.outputs[0], ())[1:2]), None)
    for found in (int(labels.min()), int(labels.max())):
        if found < 0 or (n_classes is not None and found >= n_classes):
            last = "" if n_classes is None else n_classes - 1
            raise DataError(f"labels must lie in 0..{last}, got {found}")
    return labels.astype(np.int64)


def _batch_size(student: ModelGraph, teacher: ModelGraph, n_images: int, settings: FinetuneSettings) -> int:
    for graph in (student, teacher):
        if not graph.batch_is_symbolic():
            return max(graph.shapes[graph.inputs[0]][0], 1)
    return min(settings.batch_size, n_images)


def _batches(n_images: int, batch_size: int, seed: int) -> Iterator[Array]:
    """Yields `(batch_size,)` indices for ever; every pass has a new order and drops its incomplete end."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(n_images)
        if n_images < batch_size:
            order = np.resize(order, batch_size)
        for start in range(0, len(order) - batch_size + 1, batch_size):
            yield order[start : start + batch_size]


def _colours_last(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[3] in _COLOURS and shape[1] not in _COLOURS
