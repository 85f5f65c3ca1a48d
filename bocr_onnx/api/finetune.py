"""Training alone: any exported model learns from its teacher and comes back as the same graph."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bocr_onnx.api.images import check_labels, fit_images, load_images
from bocr_onnx.api.model import read_model
from bocr_onnx.api.outputs import check_outputs
from bocr_onnx.api.progress import Progress, Silent
from bocr_onnx.api.rundir import RunDir, default_run_dir
from bocr_onnx.data import open_data, split
from bocr_onnx.errors import UsageError
from bocr_onnx.evaluation import classes_of, predict, score_outputs
from bocr_onnx.graph import check_writable, save, write_text

if TYPE_CHECKING:
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
        settings: Of the training, those that differ from the defaults.
        n_score: Images on which the best epoch is chosen.
        tensorboard: Folder for curves; None for none.
    """

    model: str
    teacher: str
    data: str
    preprocessing: str | None = None
    output: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    n_score: int = 2_000
    tensorboard: str | None = None

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


def finetune(
    options: FinetuneOptions,
    run_dir: str | Path | None = None,
    *,
    resume: str | Path | None = None,
    progress: Progress | None = None,
) -> Finetuned:
    """Trains a model towards its teacher, writes it, and returns the figures on unseen images.

    Args:
        options: What is asked for.
        run_dir: Where checkpoint and report go; ``<output>.run`` by default.
        resume: A run directory to continue; its options replace all others.
        progress: Shows steps with loss, score, images per second and the time left.

    Raises:
        BocrError: A model, the data, a setting or a place to write to cannot be used; the best model so far is in the
            checkpoint.
    """
    folder = RunDir(resume or run_dir or default_run_dir(options.path))
    if resume is not None:
        options = folder.read_options(FinetuneOptions)
    settings = _settings(options.settings)
    with folder.alone():
        if resume is None:
            folder.checkpoint.unlink(missing_ok=True)
        return _train(options, settings, folder, progress or Silent())


def _train(options: FinetuneOptions, settings: FinetuneSettings, folder: RunDir, progress: Progress) -> Finetuned:
    from bocr_onnx.api.train import check_trainable, finetune_slim

    student, teacher = read_model(options.model), read_model(options.teacher)
    output = check_writable(options.path)
    inputs = (Path(options.model), Path(options.teacher))
    check_outputs(teacher, output, folder.files, inputs=inputs)
    check_trainable(student)
    pools = open_data(options.data)
    parts = split(pools, seed=settings.seed, n_score=options.n_score)
    data = fit_images(teacher, pools, parts.score, options.preprocessing)
    if data.guessed:
        progress.note(f"preprocessing: {data.preprocessing.name} (the best fit; name it with --preset)")
    final = load_images(teacher, data, parts.final)
    outputs = predict(teacher, teacher.proto, final)
    check_labels(teacher, outputs, parts.final, options.data)
    truth = classes_of(outputs) if parts.final.labels is None else parts.final.labels
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
        tensorboard=None if options.tensorboard is None else Path(options.tensorboard),
    )
    seconds = time.perf_counter() - start
    before, after = (score_outputs(predict(teacher, p, final), truth).value for p in (student.proto, trained))
    save(trained, output, external=bool(student.external))
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
    write_text(folder.report_json, json.dumps(made.as_json(), indent=2) + "\n")
    return made


def _settings(asked: Mapping[str, Any]) -> FinetuneSettings:
    from bocr_onnx.training import FinetuneSettings

    try:
        return FinetuneSettings(**asked)
    except TypeError as error:
        raise UsageError(f"settings of finetuning must be known ones of the right kind, got {dict(asked)}") from error
