"""Training alone: any exported model learns from its teacher and comes back as the same graph."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bocr_onnx.data import Pools, Samples, fit_split, split
from bocr_onnx.errors import UsageError
from bocr_onnx.graph import ModelGraph, check_writable, load, resized, save, write_text
from bocr_onnx.options import FinetuneOptions, FinetuneSettings, keywords, part
from bocr_onnx.pipeline.images import fit_images, load_images, open_pools
from bocr_onnx.pipeline.model import open_inputs, runnable
from bocr_onnx.pipeline.outputs import check_outputs
from bocr_onnx.pipeline.rundir import RunDir, default_run_dir
from bocr_onnx.pipeline.sized import read_for_images
from bocr_onnx.progress import Progress, Silent, shown
from bocr_onnx.runtime import predict_heads
from bocr_onnx.tasks import class_names, find_task, total_distortion

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True, slots=True)
class Finetuned:
    """What training gave.

    Attributes:
        output: The trained file.
        teacher: Score of the teacher on unseen images, in [0, 1].
        before: Score of the model before training.
        after: Score of the trained model.
        metric: What they are, e.g. ``top-1`` or ``agreement with the original``, the teacher.
        distortions: How far the outputs are from the teacher's on unseen images, before and after; 0 is equal, 1 as
            far as their mean.
        finetune: Record of the training, with its settings and every candidate.
        data: Which images served for what.
        seconds: Wall time of the training.
    """

    output: str
    teacher: float
    before: float
    after: float
    metric: str
    distortions: tuple[float, ...]
    finetune: dict[str, Any]
    data: dict[str, Any]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Returns the content of report.json, which ``bocr-onnx finetune --json`` prints."""
        return {"schema": 1, **asdict(self)}


@keywords(FinetuneOptions)
def finetune(options: FinetuneOptions) -> Finetuned | None:
    """Trains a model towards its teacher, writes it, and returns the figures on unseen images.

    With several devices every process of the training comes here, and the first one alone writes.

    Args: from the record.

    Returns:
        The figures; None in the further processes of a training on several devices.

    Raises:
        BocrError: A model, the data, a setting or a place to write to cannot be used; the best model so far is in the
            checkpoint.
    """
    from bocr_onnx.training import start_engine

    folder = RunDir(options.resume or options.run_dir or default_run_dir(output_of(options)))
    resuming, progress = options.resume is not None, shown(options.progress)
    if resuming:
        options = folder.read_options(FinetuneOptions)
    engine = start_engine(options)
    if not engine.is_global_zero:
        _train(options, folder, Silent(), engine)
        return None
    with folder.alone():
        if not resuming:
            folder.checkpoint.unlink(missing_ok=True)
        return _train(options, folder, progress, engine)


def output_of(options: FinetuneOptions) -> Path:
    """Returns where the trained model goes: beside the model if nothing else is asked for."""
    if options.output is not None:
        return Path(options.output)
    if not isinstance(options.model, (str, Path)):
        raise UsageError("`output` must be given for a model in memory")
    model = Path(options.model)
    return model.with_name(f"{model.stem}_finetuned.onnx")


def _train(options: FinetuneOptions, folder: RunDir, progress: Progress, engine: Fabric) -> Finetuned:
    from bocr_onnx.pipeline.training import Material, check_trainable, finetune_slim
    from bocr_onnx.training import check_interfaces

    engine.barrier()  # the checkpoint of another training is gone

    student, teacher = _read_both(options, progress)
    output = check_writable(output_of(options))
    inputs = tuple(Path(p) for p in (options.model, options.teacher) if isinstance(p, (str, Path)))
    check_outputs(teacher, output, folder.files, inputs=inputs)
    check_interfaces(student, teacher)
    check_trainable(student, find_task(teacher, options.task, weights=options.output_weights, layout=options.layout))
    pools = open_pools(options.task, options.data)
    parts = split(pools, seed=options.seed, n_score=options.score_images, n_final=options.final_images)
    data = fit_images(teacher, pools, parts.score, options.preprocessing, layout=options.layout)
    if data.guessed:
        progress.note(f"preprocessing: {data.preprocessing.name} (the best fit; name it with `preset`)")
    parts = fit_split(parts, data.preprocessing, class_names(teacher))
    final = load_images(teacher, data, parts.final)
    task = find_task(teacher, options.task, parts.final.labels, options.output_weights, options.layout)
    outputs = predict_heads(teacher, teacher.proto, final, task.heads)
    task.check(outputs, parts.final.labels, pools.path)
    truth = task.truth(outputs, parts.final.labels)
    if engine.is_global_zero:
        folder.create(options)
    start = time.perf_counter()
    trained, record = finetune_slim(
        teacher,
        student.proto,
        Material(data, parts, load_images(teacher, data, parts.score), task),
        settings=part(FinetuneSettings, options),
        progress=progress,
        checkpoint=folder.checkpoint,
        tensorboard=Path(options.tensorboard) if options.tensorboard and engine.is_global_zero else None,
        engine=engine,
    )
    seconds = time.perf_counter() - start
    found = [predict_heads(teacher, p, final, task.heads) for p in (student.proto, trained)]
    before, after = (task.score(slim, truth).value for slim in found)
    made = Finetuned(
        output=str(output),
        teacher=task.score(outputs, truth).value,
        before=before,
        after=after,
        metric=task.metric(labelled=parts.final.labels is not None),
        distortions=tuple(total_distortion(slim, outputs, task.heads) for slim in found),
        finetune=record,
        data=parts.describe() | {"preprocessing": asdict(data.preprocessing)},
        seconds=round(seconds, 3),
    )
    if engine.is_global_zero:
        save(trained, output, external=bool(student.external))
        write_text(folder.report_json, json.dumps(made.as_json(), indent=2) + "\n")
    return made


def _read_both(options: FinetuneOptions, progress: Progress) -> tuple[ModelGraph, ModelGraph]:
    """Returns student and teacher, their open axes at the size of the images."""

    def source() -> tuple[Pools, Samples]:
        pools = open_pools(options.task, options.data)
        return pools, split(pools, seed=options.seed, n_score=options.score_images, n_final=options.final_images).score

    student = load(options.model, options.input_shapes)
    teacher = read_for_images(options.teacher, source, options.preprocessing, options.input_shapes, note=progress.note)
    if not open_inputs(student, options.input_shapes):
        return runnable(student), teacher
    with suppress(UsageError):  # other inputs, which are refused in words once both are known to run
        return runnable(resized(student, teacher.input_shapes), teacher.input_shapes), teacher
    return runnable(student, options.input_shapes), teacher
