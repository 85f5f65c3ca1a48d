"""The whole road: an ONNX file, images and a budget become a slim ONNX file with proof and figures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from bocr_onnx.api.emit import Emission, emit
from bocr_onnx.api.images import ModelData, check_chance, check_labels, fit_images, load_images, own_answers
from bocr_onnx.api.inspection import inspect_graph, match_groups
from bocr_onnx.api.progress import Progress, Silent
from bocr_onnx.api.rundir import RunDir, default_output, default_run_dir
from bocr_onnx.cost import CostModel, build_cost_model
from bocr_onnx.data import Split, open_data, split
from bocr_onnx.errors import ResumeError, UsageError
from bocr_onnx.evaluation import (
    Calibration,
    PolicyScorer,
    Recovery,
    calibrate,
    predict,
    score_outputs,
    weigh_curves,
)
from bocr_onnx.graph import Array, ModelGraph, check_writable, load
from bocr_onnx.groups import GroupIndex, build_index
from bocr_onnx.report import Report
from bocr_onnx.search import (
    Budget,
    Evaluation,
    Journal,
    Problem,
    Projection,
    SearchResult,
    Trial,
    best_trial,
    build_space,
    search,
)
from bocr_onnx.search.strategies import ONE_POLICY, find_strategy
from bocr_onnx.slimming import Mask, cut

AUTO_GRID = 8
"""Full blocks of the CPU kernels of ONNX Runtime; see docs/."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a run was asked for; written to run.json, so that it can be continued.

    Attributes:
        model: The .onnx file.
        flops: Share of MACs to keep.
        params: Share of parameters to keep.
        size: Share of the file size to keep.
        data: Images: a folder, a manifest, an .npz, or ``torchvision:NAME@ROOT``.
        preprocessing: A preset or a file; None guesses.
        output: The slim .onnx file.
        strategy: Name of the search.
        trials: Evaluated policies.
        seed: Of everything that is drawn.
        recover: Recovery of the emitted model.
        finetune: Epochs of finetuning after the search.
        round_to: Channel grid; 0 chooses one.
        freeze: Patterns of groups that keep all channels.
        n_score: Images a trial is scored on.
        n_recovery: Images the recovery is fitted on.
        threads: Of the latency measurement.
    """

    model: str
    flops: float | None = None
    params: float | None = None
    size: float | None = None
    data: str | None = None
    preprocessing: str | None = None
    output: str | None = None
    strategy: str = "bocr"
    trials: int = 40
    seed: int = 0
    recover: Recovery = "sequential"
    finetune: float = 0
    round_to: int = 0
    freeze: tuple[str, ...] = ()
    n_score: int = 2_000
    n_recovery: int = 1_000
    threads: int = 1


@dataclass(slots=True)
class _Run:
    """What is known at a point of the road."""

    options: Options
    graph: ModelGraph
    index: GroupIndex
    cost: CostModel
    projection: Projection
    progress: Progress
    output: Path
    run_dir: RunDir
    resuming: bool
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Images:
    """Data, split and loaded."""

    data: ModelData
    split: Split
    score: Array
    recovery: Array
    final: Array
    final_truth: Array
    baseline: float


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
    strategy: str = "bocr",
    trials: int = 40,
    seed: int = 0,
    recover: Recovery = "sequential",
    finetune: float = 0,
    round_to: int | str = "auto",
    freeze: Sequence[str] = (),
    run_dir: str | Path | None = None,
    resume: str | Path | None = None,
    n_score: int = 2_000,
    n_recovery: int = 1_000,
    threads: int = 1,
    progress: Progress | None = None,
) -> Report:
    """Writes a physically slimmer ONNX file and returns the report on it.

    Args:
        model: The .onnx file.
        flops: Share of MACs to keep, in (0, 1).
        params: Share of parameters to keep.
        size: Share of the file size to keep.
        data: Images, with labels or without; not needed with ``strategy="uniform"``.
        preset: Name of a preprocessing preset.
        preprocess: A preprocessing file, instead of a preset.
        output: The slim file; ``<model>_slim.onnx`` beside the original by default.
        strategy: ``bocr``, ``sensitivity``, ``random`` or ``uniform``.
        trials: Policies to evaluate.
        seed: Same inputs, seed and versions give the same plan.
        recover: ``sequential``, ``oneshot`` or ``none``.
        finetune: Epochs of training after the search.
        round_to: Channel grid; ``"auto"`` is 8 on CPUs.
        freeze: Patterns of groups that keep all channels.
        run_dir: Where plan, journal and report go; ``<output>.run`` by default.
        resume: A run directory to continue; its options replace all others.
        n_score: Images a trial is scored on.
        n_recovery: Images the recovery is fitted on.
        threads: Of the latency measurement.
        progress: Shows long steps.

    Returns:
        The report, whose `missed` lists targets and checks that were not met.

    Raises:
        BocrError: See `bocr_onnx.errors` for the tree; nothing half-written is left.
        KeyboardInterrupt: The search was interrupted; its trials are in the run directory.
    """
    if preset and preprocess:
        raise UsageError("one of --preset and --preprocess must be given, got both")
    options = Options(
        model=str(model),
        flops=flops,
        params=params,
        size=size,
        data=None if data is None else str(data),
        preprocessing=preset or (None if preprocess is None else str(preprocess)),
        output=None if output is None else str(output),
        strategy=strategy,
        trials=trials,
        seed=seed,
        recover=recover,
        finetune=finetune,
        round_to=_grid(round_to),
        freeze=tuple(freeze),
        n_score=n_score,
        n_recovery=n_recovery,
        threads=threads,
    )
    if resume is not None:
        options = replace(_resumed(Path(resume), options), model=str(model))
        run_dir = resume
    run = _prepare(options, run_dir, progress or Silent(), resuming=resume is not None)
    return _with_data(run) if options.data else _without_data(run)


def _grid(round_to: int | str) -> int:
    if round_to == "auto":
        return 0
    try:
        grid = int(round_to)
    except ValueError as error:
        raise UsageError(f"--round-to must be auto or a whole number, got {round_to!r}") from error
    if grid < 1:
        raise UsageError(f"--round-to must be auto or at least 1, got {grid}")
    return grid


def _resumed(path: Path, asked: Options) -> Options:
    stored = RunDir(path).read_options(Options)
    return replace(stored, output=asked.output or stored.output)


def _prepare(options: Options, run_dir: str | Path | None, progress: Progress, *, resuming: bool) -> _Run:
    _check(options)
    graph = load(options.model)
    path = Path(options.model)
    output = check_writable(options.output or default_output(path))
    if output.resolve() == path.resolve():
        raise UsageError(f"output {output} must not be the model itself", hint="Name another file with -o")
    index = build_index(graph)
    cost = build_cost_model(graph, index)
    space = build_space(index, grid=options.round_to or AUTO_GRID, frozen=match_groups(index, options.freeze))
    projection = Projection(space, cost, Budget(options.flops, options.params, options.size))
    projection.budget.check_reachable(cost, space)
    folder = RunDir(run_dir if run_dir is not None else default_run_dir(output))
    return _Run(options, graph, index, cost, projection, progress, output, folder, resuming)


def _check(options: Options) -> None:
    find_strategy(options.strategy)
    Budget(options.flops, options.params, options.size)
    if options.recover not in ("none", "oneshot", "sequential"):
        raise UsageError(f"--recover must be none, oneshot or sequential, got {options.recover!r}")
    if options.data is None and options.strategy != "uniform":
        raise UsageError(
            f"--search {options.strategy} must have images to score with, got no --data",
            hint="Give --data PATH (labels are not needed), or --search uniform",
        )
    if options.data is None and options.finetune:
        raise UsageError("--finetune must have images to train on, got no --data")
    if options.finetune < 0:
        raise UsageError(f"--finetune must be a number of epochs, got {options.finetune:g}")
    for name, value, least in (
        ("--trials", options.trials, 1),
        ("--seed", options.seed, 0),
        ("--score-images", options.n_score, 1),
        ("--recovery-images", options.n_recovery, 1),
    ):
        if value < least:
            raise UsageError(f"{name} must be at least {least}, got {value}")


def _without_data(run: _Run) -> Report:
    run.run_dir.create(run.options)
    calibration = calibrate(run.graph, run.index, None, seed=run.options.seed)
    problem = _problem(run, calibration)
    proposal = find_strategy(run.options.strategy)(problem, ())
    assert proposal is not None
    mask = calibration.mask(proposal[0])
    slim = cut(run.graph, run.index, mask)
    return _finish(run, mask, slim, None, None, SearchResult((), (proposal[0],)), 0.0, {})


def _with_data(run: _Run) -> Report:
    images = _load(run)
    run.run_dir.create(run.options)
    options, start = run.options, time.perf_counter()
    with run.progress.task("Measuring the original on recovery images") as update:
        calibration = calibrate(run.graph, run.index, images.recovery, seed=options.seed, progress=update)
    with run.progress.task("Scanning sensitivity of groups") as update:
        calibration = weigh_curves(calibration, progress=update)
    run.seconds["calibration"] = time.perf_counter() - start
    scorer = _scorer(run, calibration, images)
    start = time.perf_counter()
    result = _search(run, calibration, scorer, images)
    run.seconds["search"] = time.perf_counter() - start
    start = time.perf_counter()
    widths, weights = _choose(run, scorer, result)
    run.seconds["recovery"] = time.perf_counter() - start
    mask = calibration.mask(widths)
    slim = cut(run.graph, run.index, mask, weights)
    before = _final(run, images, slim, "Scoring the slim model on unseen images")
    trained, finetuned = _finetune(run, images, mask, slim)
    return _finish(run, mask, trained, images, before, result, run.seconds["search"], finetuned)


def _load(run: _Run) -> _Images:
    options = run.options
    assert options.data is not None
    start = time.perf_counter()
    pools = open_data(options.data)
    parts = split(pools, seed=options.seed, n_score=options.n_score, n_recovery=options.n_recovery)
    data = fit_images(run.graph, pools, parts.score, options.preprocessing)
    if data.guessed:
        run.progress.note(f"preprocessing: {data.preprocessing.name} (the best fit; name it with --preset)")
    with run.progress.task("Loading images") as update:
        loaded = []
        for i, samples in enumerate((parts.score, parts.recovery, parts.final)):
            loaded.append(load_images(run.graph, data, samples))
            update(i + 1, 3)
    score, recovery, final = loaded
    with run.progress.task("Scoring the original on unseen images") as update:
        outputs = predict(run.graph, run.graph.proto, final, progress=update)
    check_labels(run.graph, outputs, parts.final, data.pools.path)
    truth = own_answers(outputs) if parts.final.labels is None else parts.final.labels
    baseline = score_outputs(outputs, truth).value
    check_chance(data, baseline, len(final), outputs.shape[1])
    run.seconds["data"] = time.perf_counter() - start
    return _Images(data, parts, score, recovery, final, truth, baseline)


def _scorer(run: _Run, calibration: Calibration, images: _Images) -> PolicyScorer:
    with run.progress.task("Scoring the original on search images") as update:
        reference = predict(run.graph, run.graph.proto, images.score, progress=update)
    check_labels(run.graph, reference, images.split.score, images.data.pools.path)
    labels = images.split.score.labels
    return PolicyScorer(calibration, images.score, own_answers(reference) if labels is None else labels, reference)


def _problem(run: _Run, calibration: Calibration) -> Problem:
    return Problem(run.projection, calibration.sensitivity.curves, run.options.trials, run.options.seed)


def _search(run: _Run, calibration: Calibration, scorer: PolicyScorer, images: _Images) -> SearchResult:
    options = run.options
    problem = _problem(run, calibration)
    strategy = find_strategy(options.strategy)
    if options.strategy in ONE_POLICY:
        proposal = strategy(problem, ())
        assert proposal is not None
        return SearchResult((), (proposal[0],))
    journal = _open_journal(run, _header(run, images))
    if journal.trials:
        run.progress.note(f"continuing behind {len(journal.trials)} finished trials")

    def score(widths: np.ndarray[Any, np.dtype[np.int64]]) -> Evaluation:
        scored, _ = scorer.score(widths, "none" if options.recover == "none" else "oneshot")
        return Evaluation(scored.score.value, -float(np.log(scored.distortion + 1e-12)), scored.seconds)

    with run.progress.task(f"Search ({options.strategy})") as update:
        update(len(journal.trials), options.trials)

        def on_trial(trial: Trial) -> None:
            update(trial.number + 1, options.trials)
            best = best_trial(journal.trials)
            if best is not None and best.number == trial.number and best.score is not None:
                run.progress.note(f"trial {trial.number + 1}: {best.score:.2%} ({trial.origin})")

        result = search(problem, strategy, score, journal, on_trial=on_trial)
    if result.interrupted:
        raise KeyboardInterrupt
    return result


def _open_journal(run: _Run, header: dict[str, Any]) -> Journal:
    """Returns the journal; without --resume, one of another search is set aside and not continued."""
    try:
        return Journal(run.run_dir.journal, header)
    except ResumeError:
        if run.resuming:
            raise
    run.run_dir.set_journal_aside()
    return Journal(run.run_dir.journal, header)


def _header(run: _Run, images: _Images) -> dict[str, Any]:
    options = run.options
    budget = {k: v for k, v in run.projection.budget.shares().items() if v is not None}
    return {
        "schema": 1,
        "model_sha256": run.graph.sha256,
        "data": images.split.describe(),
        "budget": budget,
        "strategy": options.strategy,
        "seed": options.seed,
        "grid": options.round_to,
        "freeze": list(options.freeze),
        "recover": options.recover,
    }


def _choose(run: _Run, scorer: PolicyScorer, result: SearchResult) -> tuple[Array, dict[Any, Array]]:
    """Returns the finalist that is nearest to the original after the recovery it will be emitted with."""
    recovery = run.options.recover
    finalists = result.finalists if recovery == "sequential" else result.finalists[:1]
    found = []
    for i, widths in enumerate(finalists):
        with run.progress.task(f"Recovering finalist {i + 1} of {len(finalists)} ({recovery})") as update:
            scored, weights = scorer.score(widths, recovery, update)
        found.append((scored.distortion, i, widths, weights))
    _, _, widths, weights = min(found, key=lambda f: f[:2])
    return widths, weights


def _final(run: _Run, images: _Images, slim: ModelProto, text: str) -> float:
    with run.progress.task(text) as update:
        return score_outputs(predict(run.graph, slim, images.final, progress=update), images.final_truth).value


def _finetune(run: _Run, images: _Images, mask: Mask, slim: ModelProto) -> tuple[ModelProto, dict[str, Any]]:
    if not run.options.finetune:
        return slim, {}
    from bocr_onnx.api.train import finetune_slim

    start = time.perf_counter()
    trained, record = finetune_slim(
        run.graph,
        slim,
        images.data,
        images.split,
        images.score,
        epochs=run.options.finetune,
        seed=run.options.seed,
        progress=run.progress,
    )
    run.seconds["finetune"] = time.perf_counter() - start
    return trained, record


def _finish(
    run: _Run,
    mask: Mask,
    slim: ModelProto,
    images: _Images | None,
    before: float | None,
    result: SearchResult,
    search_s: float,
    finetuned: dict[str, Any],
) -> Report:
    after = None
    if images is not None:
        after = _final(run, images, slim, "Scoring the result on unseen images") if finetuned else before
    options = run.options
    emission = Emission(
        graph=run.graph,
        index=run.index,
        cost=run.cost,
        inspection=inspect_graph(run.graph, run.index, run.cost),
        mask=mask,
        slim=slim,
        output=run.output,
        run_dir=run.run_dir,
        budget=run.projection.budget,
        accuracies=None if images is None else (images.baseline, before, after),
        metric="" if images is None else images.data.metric,
        data=_data_record(images),
        search={
            "strategy": options.strategy,
            "trials": len(result.trials),
            "seed": options.seed,
            "seconds": round(search_s, 3),
            "grid": options.round_to or AUTO_GRID,
            "recover": options.recover if images is not None else "none",
        },
        finetune=finetuned,
        seconds={k: round(v, 3) for k, v in run.seconds.items()},
        threads=options.threads,
        real_inputs=None if images is None else images.final[:2],
    )
    return emit(emission, run.progress)


def _data_record(images: _Images | None) -> dict[str, Any]:
    if images is None:
        return {}
    return images.split.describe() | {
        "preprocessing": asdict(images.data.preprocessing),
        "preprocessing_guessed": images.data.guessed,
    }
