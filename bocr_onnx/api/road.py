"""The road of a run, stretch by stretch: load, calibrate, search, recover, finetune, emit."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from bocr_onnx.api.emit import Emission, emit
from bocr_onnx.api.images import ModelData, check_chance, check_labels, fit_images, load_images
from bocr_onnx.api.inspection import inspect_graph, match_groups
from bocr_onnx.api.model import read_model
from bocr_onnx.api.options import Options
from bocr_onnx.api.outputs import check_outputs
from bocr_onnx.api.progress import Progress
from bocr_onnx.api.rundir import RunDir, default_output, default_run_dir
from bocr_onnx.cost import CostModel, build_cost_model
from bocr_onnx.data import Split, open_data, split
from bocr_onnx.errors import ResumeError
from bocr_onnx.evaluation import (
    Calibration,
    PolicyScorer,
    Weights,
    calibrate,
    classes_of,
    predict,
    score_outputs,
    weigh_curves,
)
from bocr_onnx.graph import Array, ModelGraph, check_writable
from bocr_onnx.groups import GroupIndex, build_index
from bocr_onnx.report import Report
from bocr_onnx.search import (
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


@dataclass(slots=True)
class Run:
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


def prepare(options: Options, run_dir: str | Path | None, progress: Progress, *, resuming: bool) -> Run:
    """Returns a run whose model, budget and output are known to be usable; nothing is written yet."""
    options.check()
    graph = read_model(options.model)
    if options.finetune:
        from bocr_onnx.api.train import check_trainable

        check_trainable(graph)
    path = Path(options.model)
    output = check_writable(options.output or default_output(path))
    folder = RunDir(run_dir if run_dir is not None else default_run_dir(output))
    check_outputs(graph, output, folder.files)
    index = build_index(graph)
    cost = build_cost_model(graph, index)
    space = build_space(index, grid=options.grid, frozen=_frozen(index, options), min_width=options.min_width)
    projection = Projection(space, cost, options.budget)
    projection.budget.check_reachable(cost, space)
    return Run(options, graph, index, cost, projection, progress, output, folder, resuming)


def _frozen(index: GroupIndex, options: Options) -> tuple[str, ...]:
    """Returns the names of the groups that keep all channels because the user says so."""
    frozen = match_groups(index, options.freeze, "--freeze")
    if not options.only:
        return frozen
    chosen = set(match_groups(index, options.only, "--only")) - set(frozen)
    return tuple(group.name for group in index.groups if group.name not in chosen)


def travel(run: Run) -> Report:
    """Goes the whole road, from the images to the report."""
    return _without_data(run) if run.options.data is None else _with_data(run)


def _without_data(run: Run) -> Report:
    calibration = calibrate(run.graph, run.index, None, seed=run.options.seed)
    problem = _problem(run, calibration)
    proposal = find_strategy(run.options.strategy)(problem, ())
    assert proposal is not None
    mask = calibration.mask(proposal[0])
    slim = cut(run.graph, run.index, mask)
    return _finish(run, mask, slim, {}, None, None, SearchResult((), (proposal[0],)), {})


def _with_data(run: Run) -> Report:
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
    return _finish(run, mask, trained, None if finetuned else weights, images, before, result, finetuned)


def _load(run: Run) -> _Images:
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
    truth = classes_of(outputs) if parts.final.labels is None else parts.final.labels
    baseline = score_outputs(outputs, truth).value
    check_chance(data, baseline, len(final), outputs.shape[1])
    run.seconds["data"] = time.perf_counter() - start
    return _Images(data, parts, score, recovery, final, truth, baseline)


def _scorer(run: Run, calibration: Calibration, images: _Images) -> PolicyScorer:
    with run.progress.task("Scoring the original on search images") as update:
        reference = predict(run.graph, run.graph.proto, images.score, progress=update)
    check_labels(run.graph, reference, images.split.score, images.data.pools.path)
    labels = images.split.score.labels
    return PolicyScorer(calibration, images.score, classes_of(reference) if labels is None else labels, reference)


def _problem(run: Run, calibration: Calibration) -> Problem:
    return Problem(run.projection, calibration.sensitivity.curves, run.options.trials, run.options.seed)


def _search(run: Run, calibration: Calibration, scorer: PolicyScorer, images: _Images) -> SearchResult:
    options = run.options
    problem = _problem(run, calibration)
    strategy = find_strategy(options.strategy)
    if options.strategy in ONE_POLICY:
        proposal = strategy(problem, ())
        assert proposal is not None
        return SearchResult((), (proposal[0],))
    journal = _open_journal(run, _header(run, images))
    journal.check(run.projection.space)
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


def _open_journal(run: Run, header: dict[str, Any]) -> Journal:
    """Returns the journal; without --resume, one of another search is set aside and not continued."""
    try:
        return Journal(run.run_dir.journal, header)
    except ResumeError:
        if run.resuming:
            raise
    run.run_dir.set_journal_aside()
    return Journal(run.run_dir.journal, header)


def _header(run: Run, images: _Images) -> dict[str, Any]:
    options = run.options
    budget = {k: v for k, v in run.projection.budget.shares().items() if v is not None}
    return {
        "schema": 1,
        "model_sha256": run.graph.sha256,
        "data": images.split.describe(),
        "budget": budget,
        "strategy": options.strategy,
        "seed": options.seed,
        "grid": options.grid,
        "freeze": list(options.freeze),
        "only": list(options.only),
        "min_width": options.min_width,
        "recover": options.recover,
    }


def _choose(run: Run, scorer: PolicyScorer, result: SearchResult) -> tuple[Array, Weights]:
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


def _final(run: Run, images: _Images, slim: ModelProto, text: str) -> float:
    with run.progress.task(text) as update:
        return score_outputs(predict(run.graph, slim, images.final, progress=update), images.final_truth).value


def _finetune(run: Run, images: _Images, mask: Mask, slim: ModelProto) -> tuple[ModelProto, dict[str, Any]]:
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
    run: Run,
    mask: Mask,
    slim: ModelProto,
    weights: Weights | None,
    images: _Images | None,
    before: float | None,
    result: SearchResult,
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
        weights=weights,
        output=run.output,
        run_dir=run.run_dir,
        options=options,
        budget=run.projection.budget,
        accuracies=None if images is None else (images.baseline, before, after),
        metric="" if images is None else images.data.metric,
        data=_data_record(images),
        search={
            "strategy": options.strategy,
            "trials": len(result.trials),
            "seed": options.seed,
            "seconds": round(run.seconds.get("search", 0.0), 3),
            "grid": options.grid,
            "recover": options.recover if images is not None else "none",
        },
        finetune=finetuned,
        seconds={k: round(v, 3) for k, v in run.seconds.items()},
        threads=options.threads,
    )
    return emit(emission, run.progress)


def _data_record(images: _Images | None) -> dict[str, Any]:
    if images is None:
        return {}
    return images.split.describe() | {
        "preprocessing": asdict(images.data.preprocessing),
        "preprocessing_guessed": images.data.guessed,
    }
