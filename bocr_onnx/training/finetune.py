"""Finetuning a slim model towards its original: distillation, and labels where there are any."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from onnx import ModelProto

from bocr_onnx.data.augmentation import Augmentation
from bocr_onnx.errors import DataError, OutputError, ResumeError, TrainingError
from bocr_onnx.graph import Array, ModelGraph, feeds
from bocr_onnx.options import FinetuneSettings
from bocr_onnx.training.batches import Batches
from bocr_onnx.training.candidates import Candidates
from bocr_onnx.training.checkpoint import read_checkpoint, write_checkpoint
from bocr_onnx.training.learner import DivergedError, Learner, start_engine
from bocr_onnx.training.normalization import Normalized, fold, normalize
from bocr_onnx.training.operators.registry import to_tensor
from bocr_onnx.training.records import FinetuneResult, Hooks, StepReport
from bocr_onnx.training.stopping import deferred
from bocr_onnx.training.targets import Goal

if TYPE_CHECKING:
    from lightning_fabric import Fabric

MIN_STATISTICS_BATCH = 16
"""Smaller batches leave the running statistics of BatchNormalization as they are."""

N_MEASURED = 1_024
"""Images on which convolutions are measured before a BatchNormalization is put after them."""

CHECKPOINT_EVERY_S = 300.0
"""Longest time of training that a killed process loses; every epoch ends with a checkpoint as well."""


class Images(Protocol):
    """Preprocessed images by index: an array, a memory map, or anything that loads them when asked."""

    def __len__(self) -> int:
        """Returns how many there are."""
        ...

    def __getitem__(self, indices: Array, /) -> Array:
        """Returns float32 images, `(n, C, H, W)` or as the model reads them, for `(n,)` int64 indices."""
        ...


NO_HOOKS = Hooks()
OUTPUTS = Goal()


def finetune(
    student: ModelGraph,
    teacher: ModelGraph,
    images: Images,
    labels: Array | None = None,
    *,
    settings: FinetuneSettings | None = None,
    augmentation: Augmentation | None = None,
    hooks: Hooks = NO_HOOKS,
    checkpoint: Path | None = None,
    engine: Fabric | None = None,
    goal: Goal = OUTPUTS,
) -> FinetuneResult:
    """Returns the student, trained to answer as the teacher does.

    The same seed gives the same result on the CPU of one machine at one number of threads, also where training was
    cut off and goes on from its checkpoint. An interrupt (KeyboardInterrupt) ends training and keeps the best
    candidate so far.

    Args:
        student: The model to train.
        teacher: The model to follow; its inputs and outputs are those of the student.
        images: One per sample, for the only input.
        labels: Classes `(N,)`, masks `(N, H, W)`, or numbers `(N,)` or `(N, K)`; without them the teacher is all there
            is to learn from.
        settings: How; the defaults where None.
        augmentation: Random changes to the images; none where None, and none for labels that would have to move along
            (masks, numbers).
        hooks: Called on the way.
        checkpoint: File that training goes on from where it exists, and that it is kept in.
        engine: Training engine of this process if several train together; a new one where None.
        goal: What is learnt; all outputs if not given.

    Raises:
        DataError: There are no images, or the labels do not fit.
        TrainingError: An operator of either model cannot be trained, nothing in the student trains, or the two have
            other inputs or outputs.
        ResumeError: The checkpoint is damaged or belongs to another training.
    """
    settings = (settings or FinetuneSettings()).settled()
    labels = _check(student, teacher, images, labels, goal)
    if labels is not None and (labels.ndim > 1 or labels.dtype.kind == "f"):
        augmentation = None
    batch_size = _batch_size(student, teacher, len(images), settings)
    batches = Batches(len(images), batch_size, settings.seed)
    whole = _measured(student, images, batches) if settings.normalize else Normalized(student, student, ())
    engine = engine or start_engine(settings)
    learner = Learner(whole.graph, teacher, settings, augmentation or Augmentation(), engine, goal)
    learner.module.train(batch_size >= MIN_STATISTICS_BATCH)
    score = None
    if (validate := hooks.validate) is not None:
        score = lambda p: engine.broadcast(validate(p) if engine.is_global_zero else 0.0)  # noqa: E731
    training = _Training(
        learner=learner,
        whole=whole,
        batches=batches,
        candidates=Candidates(score),
        n_steps=max(round(settings.epochs * batches.n_per_epoch), 1),
        checkpoint=checkpoint,
        identity=_identity(student, teacher, images, labels, settings, augmentation) if checkpoint else "",
        hooks=hooks,
    )
    return training.run(images, labels)


@dataclass(slots=True)
class _Training:
    """The loop and where it stands.

    Attributes:
        learner: Takes the steps.
        whole: The student with its normalization, and how to fold it away.
        batches: What a step sees.
        candidates: What was scored.
        n_steps: In all.
        checkpoint: Where the state is kept; None for nowhere.
        identity: Identity of this training.
        hooks: Called on the way.
        losses: Losses of the steps since the last candidate.
        done: Steps taken.
        started: When; seconds.
        first: Steps taken before this process.
        saved: When the state was kept last.
    """

    learner: Learner
    whole: Normalized
    batches: Batches
    candidates: Candidates
    n_steps: int
    checkpoint: Path | None
    identity: str
    hooks: Hooks
    losses: list[float] = field(default_factory=list)
    done: int = 0
    started: float = field(default_factory=time.perf_counter)
    first: int = 0
    saved: float = field(default_factory=time.perf_counter)

    @property
    def epoch(self) -> float:
        return self.done / self.batches.n_per_epoch

    def run(self, images: Images, labels: Array | None) -> FinetuneResult:
        student, stopped = self.whole.plain.proto, ""
        self._load()
        try:
            if not self.done:
                self._add(student)
            while self.done < self.n_steps and not self._is_idle():
                with deferred() as stop:
                    self._step(images, labels)
                    if stop.received is not None:
                        self._save()
        except DivergedError as error:
            stopped = f"step {self.done + 1}: {error}"
        except OutputError as error:
            stopped = f"step {self.done}: {error.message}"
        except KeyboardInterrupt:
            stopped = f"interrupted after step {self.done}"
            if self.candidates.validate is None and self.learner.is_finite():
                self._add(fold(self.whole, self.learner.candidate()))
        return self.candidates.result(student, self.epoch, stopped)

    def _step(self, images: Images, labels: Array | None) -> None:
        chosen = self.learner.share(self.batches.indices(self.done + 1))
        rate = learning_rate(self.done + 1, self.n_steps, self.learner.settings)
        self.losses.append(
            self.learner.step(self.done + 1, images[chosen], None if labels is None else labels[chosen], rate)
        )
        ends = (self.done + 1) % self.batches.n_per_epoch == 0 or self.done + 1 == self.n_steps
        proto = fold(self.whole, self.learner.candidate()) if ends else None
        self.done += 1
        if self.hooks.on_step:
            self.hooks.on_step(self._report(rate))
        if proto is not None:
            self._add(proto)
        if proto is not None or time.perf_counter() - self.saved > CHECKPOINT_EVERY_S:
            self._save()

    def _report(self, rate: float) -> StepReport:
        elapsed = time.perf_counter() - self.started
        speed = (self.done - self.first) * self.batches.batch_size / elapsed
        return StepReport(self.done, self.n_steps, self.epoch, self.losses[-1], rate, elapsed, speed)

    def _add(self, proto: ModelProto) -> None:
        report = self.candidates.add(proto, self.epoch, self.losses)
        self.losses = []
        if self.hooks.on_epoch:
            self.hooks.on_epoch(report)

    def _is_idle(self) -> bool:
        patience = self.learner.settings.patience
        return bool(patience) and self.candidates.since_best >= patience

    def _save(self) -> None:
        self.saved = time.perf_counter()
        if self.checkpoint is None or not self.learner.engine.is_global_zero:
            return
        state = {"learner": self.learner.state(), "candidates": self.candidates.state()}
        write_checkpoint(self.checkpoint, self.identity, state | {"done": self.done, "losses": self.losses})

    def _load(self) -> None:
        state = None if self.checkpoint is None else read_checkpoint(self.checkpoint, self.identity)
        if state is None:
            return
        try:
            self.learner.load(state["learner"])
            self.candidates.load(state["candidates"])
            self.done, self.first, self.losses = int(state["done"]), int(state["done"]), list(state["losses"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            raise ResumeError(
                f"checkpoint {self.checkpoint} must hold the state of this training, got: {type(error).__name__} "
                f"{' '.join(str(error).split())[:200]}",
                hint="Delete it to train from the start.",
            ) from error


def _measured(student: ModelGraph, images: Images, batches: Batches) -> Normalized:
    """Returns the student with normalization put back, measured on the images of the first steps."""
    n = min(math.ceil(N_MEASURED / batches.batch_size), batches.n_per_epoch)
    rows = (images[batches.indices(step)] for step in range(1, n + 1))
    return normalize(student, (tuple(map(to_tensor, feeds(student, r).values())) for r in rows))


def _identity(
    student: ModelGraph,
    teacher: ModelGraph,
    images: Images,
    labels: Array | None,
    settings: FinetuneSettings,
    augmentation: Augmentation | None,
) -> str:
    digest = hashlib.sha256(repr((student.sha256, teacher.sha256, len(images), settings, augmentation)).encode())
    digest.update(np.ascontiguousarray(images[np.arange(1)]).tobytes())
    digest.update(b"" if labels is None else np.ascontiguousarray(labels).data)
    return digest.hexdigest()


def learning_rate(step: int, n_steps: int, settings: FinetuneSettings) -> float:
    """Returns the learning rate of a step counted from 1: a linear rise, then half a cosine.

    Example:
        >>> settings = FinetuneSettings(learning_rate=1.0, warmup=0.25)
        >>> [round(learning_rate(step, 8, settings), 2) for step in range(1, 9)]
        [0.5, 1.0, 0.93, 0.75, 0.5, 0.25, 0.07, 0.0]
    """
    peak = settings.settled().learning_rate or 0.0
    n_warm = math.ceil(settings.warmup * n_steps)
    if step <= n_warm:
        return peak * step / n_warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - n_warm) / (n_steps - n_warm)))


def _check(student: ModelGraph, teacher: ModelGraph, images: Images, labels: Array | None, goal: Goal) -> Array | None:
    """Returns the labels: classes and masks as int64, numbers as float32."""
    check_interfaces(student, teacher)
    if not len(images):
        raise DataError("finetuning must have images, got none")
    if labels is None:
        return None
    if len(labels) != len(images):
        raise DataError(f"labels must be as many as the images, {len(images)}, got {len(labels)}")
    if labels.dtype.kind == "f":
        return labels.astype(np.float32)
    if labels.ndim > 1 or goal.label_loss is not None:
        return labels.astype(np.int64)
    n_classes = next((max(n, 2) for n in student.shapes.get(student.outputs[0], ())[1:2]), None)
    for found in (int(labels.min()), int(labels.max())):
        if found < 0 or (n_classes is not None and found >= n_classes):
            last = "" if n_classes is None else n_classes - 1
            raise DataError(f"labels must be in 0..{last}, got {found}")
    return labels.astype(np.int64)


def _batch_size(student: ModelGraph, teacher: ModelGraph, n_images: int, settings: FinetuneSettings) -> int:
    for graph in (student, teacher):
        if not graph.batch_is_symbolic():
            return graph.batch
    return min(settings.batch_size, n_images)


def check_interfaces(student: ModelGraph, teacher: ModelGraph) -> None:
    """Checks that a teacher takes and gives what its student does.

    Raises:
        TrainingError: Inputs or outputs differ in name, number or shape.
    """
    for kind, ours, theirs in (
        ("inputs", student.inputs, teacher.inputs),
        ("outputs", student.outputs, teacher.outputs),
    ):
        mine = [(name, student.shapes.get(name)) for name in ours]
        wanted = [(name, teacher.shapes.get(name)) for name in theirs]
        if mine != wanted:
            raise TrainingError(
                f"{student.label} must have the {kind} of its teacher {teacher.label}, {wanted}, got {mine}"
            )
