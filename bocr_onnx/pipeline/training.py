"""Finetuning of a model on images: what a run and the command of that name have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto

from bocr_onnx.data import Samples, Split
from bocr_onnx.graph import Array, InputRows, ModelGraph, from_proto, with_outputs
from bocr_onnx.options import FinetuneSettings
from bocr_onnx.pipeline.curves import Curves, open_curves
from bocr_onnx.pipeline.images import ModelData, load_images
from bocr_onnx.progress import Progress, Update
from bocr_onnx.runtime import Outputs, predict_heads, run_once
from bocr_onnx.tasks import Classification, Own, Task, total_distortion
from bocr_onnx.training import (
    EpochReport,
    Goal,
    Hooks,
    OnnxModule,
    StepReport,
    check_agreement,
    check_trains,
    finetune,
    learnt,
    make_targets,
    target_tensors,
)

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True, slots=True)
class Material:
    """Images of a training.

    Attributes:
        data: Preprocessing and pools.
        split: Which images train.
        score: Preprocessed images that the best epoch is chosen on.
        task: What a score means.
    """

    data: ModelData
    split: Split
    score: InputRows
    task: Task


def finetune_slim(
    graph: ModelGraph,
    slim: ModelProto,
    material: Material,
    *,
    settings: FinetuneSettings,
    progress: Progress,
    checkpoint: Path | None = None,
    tensorboard: Path | None = None,
    engine: Fabric | None = None,
) -> tuple[ModelProto, dict[str, Any]]:
    """Returns the trained model and a record of the training.

    The best epoch is chosen on the images the search scored on, which are not trained on.

    Args:
        graph: The original, the teacher.
        slim: The slim model, the student.
        material: Images.
        settings: How.
        progress: Shows steps with loss, score and images per second.
        checkpoint: File that training goes on from where it exists, and that it is kept in.
        tensorboard: Folder for curves.
        engine: Training engine of this process if several train together.

    Raises:
        TrainingError: The slim model cannot be trained, or torch and ONNX Runtime disagree on it.
        ResumeError: The checkpoint belongs to another training.
        UsageError: Curves are asked for and TensorBoard is not installed.
    """
    data, split, score_images, task = material.data, material.split, material.score, material.task
    settings = settings.settled(classes=isinstance(task, Classification))
    student = replace(from_proto(slim, input_shapes=graph.input_shapes), symbolic=graph.symbolic)
    tensors = target_tensors(make_targets(student, task.heads))
    agreed = _agreement(student, tensors)
    images = _Loader(graph, data, split.training)
    reference = predict_heads(graph, graph.proto, score_images, task.heads)
    with progress.task("Finetuning") as update, open_curves(tensorboard) as curves:
        seen = _Seen(update, curves)
        result = finetune(
            student,
            graph,
            images,
            task.learns(split.training.labels),
            settings=settings,
            augmentation=data.preprocessing.augment,
            hooks=Hooks(
                on_step=seen.step,
                on_epoch=seen.epoch,
                validate=_validation(graph, material, reference),
            ),
            checkpoint=checkpoint,
            engine=engine,
            goal=Goal(task.heads, task.loss if isinstance(task, Own) else None),
        )
    if result.stopped:
        progress.note(f"finetuning stopped: {result.stopped}; the best model so far is kept")
    if result.epochs_done and len(result.history) > 1 and result.best_score == result.history[0].score is not None:
        progress.note(
            "no epoch was better than what training began with: the weights are as they were; give more epochs"
        )
    trained = replace(from_proto(result.proto, input_shapes=graph.input_shapes), symbolic=graph.symbolic)
    return result.proto, {
        "settings": asdict(settings),
        "epochs": settings.epochs,
        "epochs_done": result.epochs_done,
        "n_images": len(images),
        "best_score": result.best_score,
        "stopped": result.stopped,
        "agreement_before": agreed,
        "agreement_after": _agreement(trained, tensors),
        "history": [
            {
                "epoch": e.epoch,
                "loss": e.loss if e.loss is None or math.isfinite(e.loss) else None,
                "score": e.score,
            }
            for e in result.history
        ],
    }


@dataclass(slots=True)
class _Seen:
    """Tells the watchers of a training what happens.

    Attributes:
        update: Progress callback.
        curves: Takes named values at a step.
        score: Score of the last candidate.
        n_steps: Taken so far.
    """

    update: Update
    curves: Curves
    score: float | None = None
    n_steps: int = 0

    def step(self, report: StepReport) -> None:
        score = "" if self.score is None else f"score {self.score:.4f}  "
        self.n_steps = report.step
        self.update(report.step, report.n_steps, f"loss {report.loss:.4f}  {score}{report.images_per_s:.0f} images/s")
        self.curves(report.step, {"loss": report.loss, "learning_rate": report.learning_rate})

    def epoch(self, report: EpochReport) -> None:
        self.score = report.score
        if report.score is not None:
            self.curves(self.n_steps, {"score": report.score})


@dataclass(frozen=True, slots=True)
class _Loader:
    """Images that are decoded when a step asks for them, so that a data set may be larger than memory."""

    graph: ModelGraph
    data: ModelData
    samples: Samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, indices: Array, /) -> Array:
        return np.asarray(load_images(self.graph, self.data, self.samples.take(indices))[:])


def _validation(graph: ModelGraph, material: Material, reference: Outputs) -> Callable[[ModelProto], float]:
    task, labels = material.task, material.split.score.labels
    truth = task.truth(reference, labels)

    def validate(proto: ModelProto) -> float:
        outputs = predict_heads(graph, proto, material.score, task.heads)
        return -total_distortion(outputs, reference, task.heads) if labels is None else task.score(outputs, truth).value

    return validate


def check_trainable(graph: ModelGraph, task: Task) -> None:
    """Checks, before a search is paid for, that the model can be trained at its end.

    Raises:
        TrainingError: An operator cannot be trained through, or no weight trains.
    """
    check_trains(OnnxModule(learnt(graph, target_tensors(make_targets(graph, task.heads)))))


def _agreement(graph: ModelGraph, names: tuple[str, ...]) -> float:
    """Returns the relative difference of tensors between torch and ONNX Runtime on random inputs."""
    inner = [name for name in names if name not in graph.outputs]
    proto = with_outputs(graph.proto, inner) if inner else graph.proto

    def reference(feeds: Mapping[str, Array]) -> list[Array]:
        found = dict(zip((*graph.outputs, *inner), run_once(proto, feeds), strict=True))
        return [found[name] for name in names]

    seen = learnt(graph, names)
    return check_agreement(OnnxModule(seen), seen, reference)
