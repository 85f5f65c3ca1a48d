"""The whole road: an ONNX file, images and a budget become a slim ONNX file with proof and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bocr_onnx.api.options import Options, flag, parse_grid, shown, vars_of
from bocr_onnx.api.progress import Progress, Silent
from bocr_onnx.api.renamed import renamed
from bocr_onnx.api.road import travel
from bocr_onnx.api.run import prepare
from bocr_onnx.api.rundir import RunDir
from bocr_onnx.api.shapes import settle_shapes
from bocr_onnx.api.steps import travel_in_steps
from bocr_onnx.errors import UsageError
from bocr_onnx.evaluation import Recovery
from bocr_onnx.report import Report
from bocr_onnx.search import Settings

MAY_CHANGE = frozenset({"model", "output", "threads", "workers", "ray", "history", "memory"})
"""Options that a run may have others of when it is resumed."""


@renamed(strategy="search", n_score="score_images", n_recovery="recovery_images")
def prune(
    model: str | Path,
    *,
    flops: float | None = None,
    params: float | None = None,
    size: float | None = None,
    data: str | Path | None = None,
    preset: str | None = None,
    preprocess: str | Path | None = None,
    output: str | Path | None = None,
    search: str = "bocr",
    trials: int = 40,
    seed: int = 0,
    recover: Recovery = "sequential",
    finetune: float = 0,
    steps: int = 1,
    round_to: int | str = "auto",
    freeze: Sequence[str] = (),
    only: Sequence[str] = (),
    min_width: int = 1,
    run_dir: str | Path | None = None,
    resume: str | Path | None = None,
    score_images: int = 2_000,
    recovery_images: int = 1_000,
    final_images: int = 10_000,
    memory: float = 2.0,
    threads: int = 1,
    settings: Settings | None = None,
    race: bool = True,
    workers: int = 1,
    ray: str | None = None,
    history: str | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Writes a physically slimmer ONNX file and returns the report on it.

    Args:
        model: The .onnx file.
        flops: Share of MACs to keep, in (0, 1).
        params: Share of parameters to keep.
        size: Share of the file size to keep.
        data: Images, with labels or without; not needed with ``search="uniform"``.
        preset: Name of a preprocessing preset.
        preprocess: A preprocessing file, instead of a preset.
        output: The slim file; ``<model>_slim.onnx`` beside the original by default.
        search: ``bocr``, ``bocr-paper``, ``bo``, ``local``, ``amc``, ``sensitivity``, ``random`` or ``uniform``.
        trials: Policies to evaluate.
        seed: Same inputs, seed and versions give the same plan.
        recover: ``sequential``, ``oneshot`` or ``none``.
        finetune: Epochs of training after the search, in every round.
        steps: Rounds of search, recovery and training towards the budget.
        round_to: Channel grid; ``"auto"`` is 8 on CPUs.
        freeze: Patterns of groups that keep all channels.
        only: Patterns of the only groups that may lose channels; all where empty.
        min_width: Channels that every group keeps at least.
        run_dir: Where plan, journal and report go; ``<output>.run`` by default.
        resume: A run directory to continue, with its own options; more `trials` may be asked for.
        score_images: Images a trial is scored on.
        recovery_images: Images the recovery is fitted on.
        final_images: Unseen images that the report's score is taken on.
        memory: GiB that images and activations may take together.
        threads: Number of threads used when measuring latency.
        settings: Settings of particular strategies.
        race: Whether hopeless trials are stopped on the first images.
        workers: Trials that run at once.
        ray: Address of the Ray cluster they run on.
        history: File of earlier searches, or ``"none"``; the one in the user's data folder by default.
        input_shapes: Shapes of inputs by name, for the axes that the file leaves open; the slim file keeps them open.
        progress: Shows long steps.

    Returns:
        The report, whose `missed` lists targets and checks that were not met.

    Raises:
        BocrError: See `bocr_onnx.errors` for the tree; nothing half-written is left.
        KeyboardInterrupt: The search was interrupted; its trials are in the run directory.
    """
    if not all(isinstance(share, (int, float)) or share is None for share in (flops, params, size)):
        raise UsageError(
            "prune must have one budget, got several",
            hint="bocr_onnx.prune_each takes several, in bocr_onnx.Options.",
        )
    options = build_options(
        model,
        flops=_shares(flops),
        params=_shares(params),
        size=_shares(size),
        data=data,
        preset=preset,
        preprocess=preprocess,
        output=output,
        strategy=search,
        trials=trials,
        seed=seed,
        recover=recover,
        finetune=finetune,
        steps=steps,
        round_to=round_to,
        freeze=freeze,
        only=only,
        min_width=min_width,
        n_score=score_images,
        n_recovery=recovery_images,
        n_final=final_images,
        memory=memory,
        threads=threads,
        settings=settings or Settings(),
        race=race,
        workers=workers,
        ray=ray,
        history=history,
        input_shapes=input_shapes,
    )
    return prune_each(options, run_dir, resume=resume, progress=progress)[0]


def build_options(
    model: str | Path,
    *,
    data: str | Path | None = None,
    preset: str | None = None,
    preprocess: str | Path | None = None,
    output: str | Path | None = None,
    round_to: int | str = "auto",
    freeze: Sequence[str] = (),
    only: Sequence[str] = (),
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    **rest: Any,
) -> Options:
    """Returns options from what people type: paths as they are, ``auto`` for the grid.

    Raises:
        UsageError: Two options contradict each other, or the grid is not one.
    """
    if preset and preprocess:
        raise UsageError("one of --preset and --preprocess must be given, got both")
    for name, value in (("model", model), ("data", data), ("output", output)):
        if value is not None and not isinstance(value, (str, Path)):
            raise UsageError(
                f"{name} must be a path, got a {type(value).__name__}",
                hint="Write it to a file first: onnx.save(model, path); numpy.savez(path, images=..., labels=...).",
            )
    return Options(
        model=str(model),
        data=None if data is None else str(data),
        preprocessing=preset or (None if preprocess is None else str(preprocess)),
        output=None if output is None else str(output),
        round_to=parse_grid(round_to),
        freeze=tuple(freeze),
        only=tuple(only),
        input_shapes=settle_shapes(input_shapes),
        **rest,
    )


def prune_each(
    options: Options,
    run_dir: str | Path | None = None,
    *,
    resume: str | Path | None = None,
    progress: Progress | None = None,
) -> tuple[Report, ...]:
    """Writes one slim ONNX file for each budget and returns their reports, the most generous budget first.

    The budgets share images, calibration and evaluations: what a policy scored at one budget teaches the search at
    the next.

    Args:
        options: What is asked for.
        run_dir: Where plan, journal and report go; ``<output>.run`` by default, with a folder for each budget where
            there are several.
        resume: A run directory to continue, with its own options; more trials may be asked for.
        progress: Shows long steps.

    Raises:
        BocrError: See `bocr_onnx.errors` for the tree; nothing half-written is left.
        KeyboardInterrupt: The search was interrupted; its trials are in the run directory.
    """
    if resume is not None:
        options = replace(_resumed(Path(resume), options), model=options.model)
        run_dir = resume
    runs = prepare(options, run_dir, progress or Silent(), resuming=resume is not None)
    return (travel_in_steps(runs[0], options),) if options.steps > 1 else travel(runs, options)


def _shares(share: float | None) -> tuple[float, ...]:
    return () if share is None else (float(share),)


def _resumed(path: Path, asked: Options) -> Options:
    """Returns the options of a run, with more trials where these are asked for.

    Raises:
        UsageError: Another option is asked for than the run has.
    """
    stored, default = RunDir(path).read_options(Options), Options(asked.model)
    changed = {n: v for n, v in vars_of(asked).items() if v not in (getattr(default, n), getattr(stored, n))}
    for name, value in changed.items():
        more = name == "trials" and asked.trials > stored.trials
        if name not in MAY_CHANGE and not more:
            raise UsageError(
                f"{flag(name)} must stay as it was in the run that is resumed, {shown(getattr(stored, name))}, "
                f"got {shown(value)}",
                hint="Leave it out; more --trials, another --output and other machines may be asked for.",
            )
    return replace(stored, **{name: value for name, value in changed.items() if name != "model"})
