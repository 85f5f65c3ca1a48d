"""The options of every command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator

from bocr_onnx.errors import UsageError
from bocr_onnx.options.parse import (
    parse_cores,
    parse_data,
    parse_grid,
    parse_model,
    parse_models,
    parse_patterns,
    parse_place,
)
from bocr_onnx.options.record import Flag, options_of, record
from bocr_onnx.options.strategies import SearchName, StrategyOptions
from bocr_onnx.options.training import FinetuneSettings
from bocr_onnx.options.types import (
    BUDGET,
    DATA,
    DATA_FLAG,
    FLOOR,
    MACHINES,
    MAX_EPOCHS,
    RECOVERY,
    SEARCH,
    CheckImages,
    Count,
    Data,
    DataSource,
    DeviceName,
    FinalImages,
    InputShapes,
    Latencies,
    LayoutName,
    Model,
    ModelSource,
    OutputWeights,
    Place,
    Preprocess,
    Preset,
    Progress,
    Resume,
    RunDirectory,
    Seed,
    Share,
    TaskName,
)

NDK_COMPILER = "aarch64-linux-android24-clang"
"""Name of the C compiler in the Android NDK, for 64-bit phones of Android 7 and later."""

CPU_PROVIDER = "CPUExecutionProvider"

MAX_BUDGETS = 7
"""Budgets that are tried at most where the score is bounded."""

MOST_SHARE = 0.97
"""The most generous budget that is tried where the score is bounded."""

AUTO_GRID = 8
"""Full blocks of the CPU kernels of ONNX Runtime: counts off the grid run up to twice as slow as the unpruned layer."""

Patterns = Annotated[tuple[str, ...], PlainValidator(parse_patterns)]
Recovery = Literal["none", "oneshot", "sequential", "blockwise"]
"""How weights are refitted after the cut."""


@record
class InputOptions:
    """Options of every command that reads models."""

    input_shapes: InputShapes = field(default_factory=dict)
    progress: Progress = None


@record
class ModelOptions(InputOptions):
    """Options of every command that reads one model."""

    model: Model = field(kw_only=False)


@record
class TaskOptions(InputOptions):
    """Options of every command that reads images."""

    task: TaskName = "auto"
    layout: LayoutName = "auto"
    output_weights: OutputWeights = field(default_factory=dict)
    preset: Preset = None
    preprocess: Preprocess = None

    def __post_init__(self) -> None:
        """Checks that the preprocessing is given once."""
        if self.preset and self.preprocess:
            raise UsageError("one of `preset` and `preprocess` must be given, got both")

    @property
    def preprocessing(self) -> str | None:
        """Returns a preset or a file; None guesses."""
        return self.preset or (None if self.preprocess is None else str(self.preprocess))


@record
class ImageOptions(TaskOptions, ModelOptions):
    """Options of every command that reads one model and images."""


@record
class InspectOptions(ModelOptions):
    """Options of ``inspect``."""


@record
class ApplyOptions(ModelOptions):
    """Options of ``apply``."""

    plan: Annotated[
        str | Path,
        BeforeValidator(parse_place),
        Flag("A plan.json, made for the model or for one of the same structure.", argument=True),
    ] = field(kw_only=False)
    output: Annotated[str | Path, BeforeValidator(parse_place), Flag("The slim file.", letter="-o")] = field(
        kw_only=False
    )
    strict: Annotated[bool, Flag("Refuse any file other than the one the plan was made for.")] = False


@record
class EvaluateOptions(ImageOptions):
    """Options of ``evaluate``."""

    data: Data = field(kw_only=False)
    against: Annotated[Place, Flag("The original: its score and the agreement of both are shown; needs no labels.")] = (
        None
    )


@record
class BenchOptions(TaskOptions):
    """Options of ``bench``."""

    models: Annotated[
        tuple[str | Path, ...],
        BeforeValidator(parse_models),
        Flag("The .onnx files; the first is what the others are compared with.", argument=True),
    ] = field(kw_only=False)
    device: DeviceName = "host"
    threads: Annotated[int, Field(ge=0, le=1024), Flag("Threads of a run; 0 means one per core.", MACHINES)] = 1
    runs: Annotated[
        int, Field(ge=0, le=1_000_000), Flag("Runs of each model; 0 for as many as `seconds` allows.", MACHINES)
    ] = 0
    seconds: Annotated[float, Field(gt=0, le=3600), Flag("Time to spend on all models, in s.", MACHINES)] = 10.0
    pin: Annotated[
        tuple[int, ...],
        PlainValidator(parse_cores),
        Flag("Cores that the runs keep to, e.g. 0,2.", MACHINES, metavar="CORES"),
    ] = ()
    provider: Annotated[str, Flag("Execution provider of ONNX Runtime.", MACHINES, metavar="NAME")] = CPU_PROVIDER
    profile: Annotated[bool, Flag("Show the time of each operator of the optimized graph.", MACHINES)] = False
    data: Annotated[DataSource | None, BeforeValidator(parse_data), DATA_FLAG] = None
    check_images: CheckImages = 100


@record
class DeviceOptions:
    """Options of ``device check``."""

    device: Annotated[str, Flag("host, ssh://USER@HOST[:PORT], web, web://lan or android[:SERIAL].", argument=True)] = (
        field(default="host", kw_only=False)
    )
    install: Annotated[bool, Flag("Install ONNX Runtime there, into a virtual environment of its own.")] = False
    progress: Progress = None


@record
class AddOptions:
    """Options of ``device add``."""

    device: Annotated[Literal["web", "android"], Flag("web or android.", argument=True)] = field(kw_only=False)
    ort_web: Annotated[
        Place, Flag("For web: folder or .tgz with the release, where there is no network.", metavar="PATH")
    ] = None
    yes: Annotated[bool, Flag("For web: fetch without asking.")] = False
    aar: Annotated[Place, Flag("For android: archive of ONNX Runtime for Android.", metavar="PATH")] = None
    compiler: Annotated[str, Flag("For android: C compiler for the phone.", metavar="COMMAND")] = NDK_COMPILER
    abi: Annotated[
        Literal["arm64-v8a", "armeabi-v7a", "x86_64"], Flag("For android: binary interface of the phone.")
    ] = "arm64-v8a"
    runner: Annotated[
        Place, Flag("For android: folder with a runner of your own, and its libraries.", metavar="PATH")
    ] = None
    progress: Progress = None


@record
class PruneOptions(StrategyOptions, ImageOptions):
    """Options of ``prune``; kept in run.json, so that a run can be continued."""

    flops: Annotated[Share, Flag("Share of the MACs to keep, or several: 0.7,0.5,0.3.", BUDGET, metavar="SHARE")] = None
    params: Annotated[Share, Flag("Share of the parameters to keep, or several.", BUDGET, metavar="SHARE")] = None
    size: Annotated[Share, Flag("Share of the file size to keep, or several.", BUDGET, metavar="SHARE")] = None
    latency: Annotated[
        Latencies,
        Flag(
            "Share of the latency on `device` to keep, or milliseconds: 0.6, 8ms; with --int8 that of models in int8.",
            BUDGET,
            metavar="SHARE|MS",
        ),
    ] = None
    force: Annotated[bool, Flag("Write a model that is slower than its original in spite of `latency`.", BUDGET)] = (
        False
    )
    max_drop: Annotated[
        float | None,
        Field(gt=0, lt=100),
        Flag("Points of the score that may be lost; the cheapest budget is found.", FLOOR, metavar="POINTS"),
    ] = None
    min_score: Annotated[
        float | None,
        Field(gt=0, lt=1),
        Flag("Score to hold, in [0, 1]; the cheapest budget is found.", FLOOR, metavar="SCORE"),
    ] = None
    minimize: Annotated[
        Literal["flops", "latency", "params", "size"], Flag("What is made as small as the floor allows.", FLOOR)
    ] = "flops"
    confidence: Annotated[
        float, Field(ge=0.5, lt=1), Flag("Confidence that the floor holds on other images.", FLOOR)
    ] = 0.9
    data: Annotated[DataSource | None, BeforeValidator(parse_data), DATA_FLAG] = None
    score_images: Annotated[Count, Flag("Number of images each trial is scored on.", DATA)] = 2_000
    recovery_images: Annotated[Count, Flag("Number of images the recovery is fitted on.", DATA)] = 1_000
    final_images: FinalImages = 10_000
    output: Annotated[Place, Flag("The slim file; <model>_slim.onnx by default.", letter="-o")] = None
    run_dir: RunDirectory = None
    resume: Resume = None
    search: Annotated[SearchName, Flag("Search strategy.", SEARCH)] = "bocr"
    trials: Annotated[
        int, Field(ge=1, le=1_000_000), Flag("Policies to evaluate, in total over all budgets and rounds.", SEARCH)
    ] = 40
    patience: Annotated[
        int, Field(ge=0), Flag("Stop the search after so many trials without a gain of 1 %; 0 never.", SEARCH)
    ] = 15
    race: Annotated[bool, Flag("Stop hopeless trials early, after the first images.", SEARCH)] = True
    seed: Annotated[Seed, Flag("Random seed; the same seed gives the same plan.", SEARCH)] = 0
    rounds: Annotated[
        int, Field(ge=1, le=100), Flag("Number of rounds of search, recovery and finetuning.", SEARCH)
    ] = 1
    round_to: Annotated[
        int | Literal["auto"],
        PlainValidator(parse_grid),
        Flag("Keep multiples of this many channels: auto (8) or a whole number.", SEARCH, metavar="auto|INTEGER"),
    ] = "auto"
    freeze: Annotated[
        Patterns, Flag("Groups to leave uncut (shell pattern; may be repeated).", SEARCH, metavar="PATTERN")
    ] = ()
    only: Annotated[
        Patterns, Flag("The only groups to cut (shell pattern; may be repeated).", SEARCH, metavar="PATTERN")
    ] = ()
    min_width: Annotated[int, Field(ge=1), Flag("Minimum number of channels kept in every group.", SEARCH)] = 1
    recover: Annotated[Recovery, Flag("How weights are refitted.", RECOVERY)] = "blockwise"
    recover_seconds: Annotated[
        float | None, Field(gt=0), Flag("Time limit of --recover blockwise in s; blocks beyond it stay.", RECOVERY)
    ] = None
    finetune: Annotated[
        float, Field(ge=0, lt=MAX_EPOCHS), Flag("Epochs of finetuning after the search, in every round.", RECOVERY)
    ] = 0
    emit: Annotated[Literal["onnx", "ort"], Flag("Also write the .ort file of phones: ort.", RECOVERY)] = "onnx"
    int8: Annotated[bool, Flag("Write the slim model in int8 too, beside it.", RECOVERY)] = False
    int8_drop: Annotated[
        float,
        Field(ge=0, lt=100),
        Flag("Most points of score that --int8 may cost; costly operators go back to float.", RECOVERY),
    ] = 1.0
    device: DeviceName = "host"
    check_images: CheckImages = 100
    memory: Annotated[
        float, Field(ge=0.01, le=65_536), Flag("Memory limit for images and activations, in GiB.", MACHINES)
    ] = 2.0
    threads: Annotated[
        int, Field(ge=1, le=1_024), Flag("Threads used when measuring latency (does not limit the search).", MACHINES)
    ] = 1
    workers: Annotated[int, Field(ge=1, le=256), Flag("Number of trials run in parallel.", MACHINES)] = 1
    ray: Annotated[str | None, Flag("Address of a Ray cluster to run trials on.", MACHINES)] = None
    history: Annotated[Place, Flag("History file, or none to disable.", MACHINES)] = None

    @property
    def budgets(self) -> tuple[dict[str, float], ...]:
        """Returns the bounds by quantity of every budget, the most generous first; one without bounds if none is given.

        Raises:
            UsageError: Bounds are given for different numbers of budgets, or a budget twice.
        """
        given = {name: shares for name in BUDGETS if (shares := _bounds(getattr(self, name)))}
        if self.has_floor:
            given.setdefault(self.minimize, (MOST_SHARE,))
        n = max(map(len, given.values()), default=1)
        for name, shares in given.items():
            if len(shares) not in (1, n):
                raise UsageError(f"`{name}` must hold one share or {n}, got {len(shares)}")
        found = [{name: shares[i % len(shares)] for name, shares in given.items()} for i in range(n)]
        if any(found.count(bounds) > 1 for bounds in found):
            raise UsageError("budgets must differ, got one twice")
        return tuple(sorted(found, key=lambda bounds: [-bounds.get(name, 1.0) for name in BUDGETS]))

    @property
    def bounds_latency(self) -> bool:
        """Returns whether latency is a budget, given or to be found."""
        return self.latency is not None or (self.has_floor and self.minimize == "latency")

    @property
    def has_floor(self) -> bool:
        """Returns whether a score is to be held, at a budget that is found."""
        return self.max_drop is not None or self.min_score is not None

    def part(self, number: int, n: int, bounds: Mapping[str, float], output: str) -> PruneOptions:
        """Returns the options of one of several budgets or rounds, with its share of the trials.

        Args:
            number: Number of the part, from 0.
            n: Number of parts.
            bounds: Its budget.
            output: Its slim file.
        """
        trials = self.trials // n + (number < self.trials % n)
        shares: dict[str, Any] = {name: bounds.get(name) for name in BUDGETS}
        return replace(self, **shares, trials=trials, rounds=1, output=output)

    @property
    def n_images(self) -> dict[str, int]:
        """Returns the sizes of the parts that images are divided into, as `bocr_onnx.data.split` takes them."""
        return {"n_score": self.score_images, "n_recovery": self.recovery_images, "n_final": self.final_images}

    @property
    def grid(self) -> int:
        """Returns the channel grid."""
        return AUTO_GRID if self.round_to == "auto" else self.round_to

    @property
    def memory_bytes(self) -> int:
        """Returns what images and activations may take together."""
        return int(self.memory * 2**30)


def _bounds(value: Any) -> tuple[float, ...]:
    """Returns the bounds of an option in numbers: shares, or milliseconds."""
    return tuple(float(one.removesuffix("ms")) if isinstance(one, str) else float(one) for one in value or ())


BUDGETS = tuple(o.name for o in options_of(PruneOptions) if o.flag.panel == BUDGET and o.type is not bool)
"""Options that bound a quantity."""


@record
class FinetuneOptions(FinetuneSettings, ImageOptions):
    """Options of ``finetune``; kept in run.json, so that a run can be continued."""

    teacher: Annotated[
        ModelSource,
        BeforeValidator(parse_model),
        Flag("The .onnx file to distill from, e.g. the original before pruning."),
    ] = field(kw_only=False)
    data: Data = field(kw_only=False)
    score_images: Annotated[Count, Flag("Number of images used to choose the best epoch.", DATA)] = 2_000
    final_images: FinalImages = 10_000
    output: Annotated[Place, Flag("The trained file; <model>_finetuned.onnx by default.", letter="-o")] = None
    run_dir: RunDirectory = None
    resume: Resume = None
    tensorboard: Annotated[Place, Flag("Folder for TensorBoard curves.")] = None
