"""Training alone: any exported model learns from its teacher and comes back as the same graph."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bocr_onnx.api.images import check_labels, fit_images, load_images
from bocr_onnx.api.model import open_inputs, runnable
from bocr_onnx.api.outputs import check_outputs
from bocr_onnx.api.progress import Progress, Silent
from bocr_onnx.api.renamed import renamed
from bocr_onnx.api.rundir import RunDir, default_run_dir
from bocr_onnx.api.shapes import settle_shapes
from bocr_onnx.api.sized import read_for_images
from bocr_onnx.data import Pools, Samples, open_data, split
from bocr_onnx.errors import UsageError, did_you_mean
from bocr_onnx.evaluation import classes_of, predict, score_outputs
from bocr_onnx.graph import ModelGraph, check_writable, load, resized, save, write_text

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from bocr_onnx.training import FinetuneSettings


@dataclass(frozen=True, slots=True)
class FinetuneOptions:
    """What a training was asked for; written to run.json, so that it can be continued.

    Attributes:
        model: The .onnx file to train.
        teacher: The .onnx file to learn from.
        data: Images, with labels or without.
        preprocessing: A preset or a file; None guesses.
        output: The trained .onnx file.
        settings: Training settings that differ from the defaults.
        n_score: Images on which the best epoch is chosen.
        n_final: Unseen images that the report's score is taken on.
        tensorboard: Folder for curves; None for none.
        input_shapes: Shapes of inputs, for the axes that both files leave open, by name.
    """

    model: str
    teacher: str
    data: str
    preprocessing: str | None = None
    output: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    n_score: int = 2_000
    n_final: int = 10_000
    tensorboard: str | None = None
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """Returns where the trained model goes: beside the model where nothing is said."""
        model = Path(self.model)
        return Path(self.output) if self.output else model.with_name(f"{model.stem}_finetuned.onnx")


@dataclass(frozen=True, slots=True)
class Finetuned:
    """What training gave.

    Attributes:
        output: The trained file.
        teacher: Score of the teacher on unseen images, in [0, 1].
        before: Score of the model before training.
        after: Score of the trained model.
        metric: What they are: ``top-1`` or ``agreement with the original``, the teacher.
        finetune: Record of the training, with its settings and every candidate.
        data: Which images served for what.
        seconds: Wall time of the training.
    """

    output: str
    teacher: float
    before: float
    after: float
    metric: str
    finetune: dict[str, Any]
    data: dict[str, Any]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Returns the content of report.json, which ``bocr-onnx finetune --json`` prints."""
        return {"schema": 1, **asdict(self)}


@renamed(n_score="score_images")
def finetune(
    model: str | Path,
    teacher: str | Path,
    data: str | Path,
    *,
    preset: str | None = None,
    preprocess: str | Path | None = None,
    output: str | Path | None = None,
    run_dir: str | Path | None = None,
    resume: str | Path | None = None,
    score_images: int = 2_000,
    final_images: int = 10_000,
    tensorboard: str | Path | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Finetuned | None:
    """Trains a model towards its teacher, writes it, and returns the figures on unseen images.

    Args:
        model: The .onnx file to train.
        teacher: The .onnx file to learn from, with the same inputs and outputs.
        data: Images, with labels or without.
        preset: Name of a preprocessing preset.
        preprocess: A preprocessing file, instead of a preset.
        output: The trained file; ``<model>_finetuned.onnx`` beside the model by default.
        run_dir: Where checkpoint and report go; ``<output>.run`` by default.
        resume: A run directory to continue; its options replace all others.
        score_images: Images on which the best epoch is chosen.
        final_images: Unseen images that the report's score is taken on.
        tensorboard: Folder for curves.
        input_shapes: Shapes of inputs by name, for the axes that both files leave open; those of the images by default.
        progress: Shows steps with loss, score, images per second and the time left.
        settings: Fields of `bocr_onnx.training.FinetuneSettings`, e.g. ``epochs=2``.

    Returns:
        The figures; None in the further processes of a training on several devices.

    Raises:
        BocrError: A model, the data, a setting or a place to write to cannot be used; the best model so far is in the
            checkpoint.
    """
    if preset and preprocess:
        raise UsageError("one of --preset and --preprocess must be given, got both")
    options = FinetuneOptions(
        model=str(model),
        teacher=str(teacher),
        data=str(data),
        preprocessing=preset or (None if preprocess is None else str(preprocess)),
        output=None if output is None else str(output),
        settings=settings,
        n_score=score_images,
        n_final=final_images,
        tensorboard=None if tensorboard is None else str(tensorboard),
        input_shapes=settle_shapes(input_shapes),
    )
    return train_model(options, run_dir, resume=resume, progress=progress)


def train_model(
    options: FinetuneOptions,
    run_dir: str | Path | None = None,
    *,
    resume: str | Path | None = None,
    progress: Progress | None = None,
) -> Finetuned | None:
    """Does what `finetune` does, from a record of what is asked for.

    With several devices every process of the training comes here, and the first one alone writes.
    """
    folder = RunDir(resume or run_dir or default_run_dir(options.path))
    if resume is not None:
        options = folder.read_options(FinetuneOptions)
    from bocr_onnx.training import start_engine

    settings = _settings(options.settings)
    engine = start_engine(settings)
    if not engine.is_global_zero:
        _train(options, settings, folder, Silent(), engine)
        return None
    with folder.alone():
        if resume is None:
            folder.checkpoint.unlink(missing_ok=True)
        return _train(options, settings, folder, progress or Silent(), engine)


def _train(
    options: FinetuneOptions, settings: FinetuneSettings, folder: RunDir, progress: Progress, engine: Fabric
) -> Finetuned:
    from bocr_onnx.api.train import check_trainable, finetune_slim
    from bocr_onnx.training import check_interfaces

    engine.barrier()  # the checkpoint of another training is gone

    student, teacher = _read_both(options, settings, progress)
    output = check_writable(options.path)
    inputs = (Path(options.model), Path(options.teacher))
    check_outputs(teacher, output, folder.files, inputs=inputs)
    check_trainable(student)
    check_interfaces(student, teacher)
    pools = open_data(options.data)
    parts = split(pools, seed=settings.seed, n_score=options.n_score, n_final=options.n_final)
    data = fit_images(teacher, pools, parts.score, options.preprocessing)
    if data.guessed:
        progress.note(f"preprocessing: {data.preprocessing.name} (the best fit; name it with --preset)")
    final = load_images(teacher, data, parts.final)
    outputs = predict(teacher, teacher.proto, final)
    check_labels(teacher, outputs, parts.final, options.data)
    truth = classes_of(outputs) if parts.final.labels is None else parts.final.labels
    if engine.is_global_zero:
        folder.create(options)
    start = time.perf_counter()
    trained, record = finetune_slim(
        teacher,
        student.proto,
        data,
        parts,
        load_images(teacher, data, parts.score),
        settings=settings,
        progress=progress,
        checkpoint=folder.checkpoint,
        tensorboard=Path(options.tensorboard) if options.tensorboard and engine.is_global_zero else None,
        engine=engine,
    )
    seconds = time.perf_counter() - start
    before, after = (score_outputs(predict(teacher, p, final), truth).value for p in (student.proto, trained))
    made = Finetuned(
        output=str(output),
        teacher=score_outputs(outputs, truth).value,
        before=before,
        after=after,
        metric=data.metric,
        finetune=record,
        data=parts.describe() | {"preprocessing": asdict(data.preprocessing)},
        seconds=round(seconds, 3),
    )
    if engine.is_global_zero:
        save(trained, output, external=bool(student.external))
        write_text(folder.report_json, json.dumps(made.as_json(), indent=2) + "\n")
    return made


def _read_both(
    options: FinetuneOptions, settings: FinetuneSettings, progress: Progress
) -> tuple[ModelGraph, ModelGraph]:
    """Returns student and teacher, their open axes at the size of the images."""

    def source() -> tuple[Pools, Samples]:
        pools = open_data(options.data)
        return pools, split(pools, seed=settings.seed, n_score=options.n_score, n_final=options.n_final).score

    student = load(options.model, options.input_shapes)
    teacher = read_for_images(options.teacher, source, options.preprocessing, options.input_shapes, note=progress.note)
    if not open_inputs(student, options.input_shapes):
        return runnable(student), teacher
    with suppress(UsageError):  # other inputs, which are refused in words once both are known to run
        return runnable(resized(student, teacher.input_shapes), teacher.input_shapes), teacher
    return runnable(student, options.input_shapes), teacher


def _settings(asked: Mapping[str, Any]) -> FinetuneSettings:
    from bocr_onnx.training import FinetuneSettings

    known = tuple(f.name for f in fields(FinetuneSettings))
    for name in asked:
        if name not in known:
            raise UsageError(f"unknown finetuning setting {name!r}", hint=did_you_mean(name, known))
    try:
        return FinetuneSettings(**asked)
    except TypeError as error:  # a value of another type
        raise UsageError(f"a finetuning setting has a value of the wrong type: {dict(asked)}") from error
