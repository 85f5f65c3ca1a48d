"""The road of a run, stretch by stretch: measure, search, recover, finetune, emit."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from onnx import ModelProto

from bocr_onnx.api.choose import choose
from bocr_onnx.api.emit import Emission, emit
from bocr_onnx.api.ground import Ground, Images, load_all, measure
from bocr_onnx.api.inspection import inspect_graph
from bocr_onnx.api.run import Run
from bocr_onnx.api.rundir import RunDir
from bocr_onnx.api.seek import one_policy, pose, seek
from bocr_onnx.evaluation import Calibration, Weights, calibrate, predict, score_outputs
from bocr_onnx.graph import write_text
from bocr_onnx.options import PruneOptions, Recovery
from bocr_onnx.report import Report, front_text
from bocr_onnx.search import Past, SearchResult, Trial, TrialState
from bocr_onnx.slimming import Mask, cut


@dataclass(frozen=True, slots=True)
class Slim:
    """The slim model and what is known of it.

    Attributes:
        mask: Which channels stay.
        proto: The model.
        weights: What recovery has set; None after finetuning, which sets any.
        result: Result of the search.
        recovery: That was best for it.
        images: It was scored on; None without data.
        accuracies: Accuracies of the original, before finetuning and at the end; None without data.
        finetune: Record of the finetuning, of the last round where there were several.
        rounds: Records of the searches, where there were several rounds.
        undecided: Groups that lost channels although nothing tells theirs apart.
    """

    mask: Mask
    proto: ModelProto
    weights: Weights | None
    result: SearchResult
    recovery: Recovery = "none"
    images: Images | None = None
    accuracies: tuple[float, float, float] | None = None
    finetune: dict[str, Any] = field(default_factory=dict)
    rounds: tuple[dict[str, Any], ...] = ()
    undecided: tuple[str, ...] = ()


def travel(runs: tuple[Run, ...], asked: PruneOptions) -> tuple[Report, ...]:
    """Goes the whole road for every budget of one model; later ones know the evaluations of earlier ones.

    Args:
        runs: One for each budget.
        asked: What was asked for, all budgets together.
    """
    if len(runs) == 1:
        return _go(runs)
    top = RunDir(runs[0].run_dir.path.parent)
    with top.alone():
        top.create(asked)
        reports = _go(runs)
        write_text(top.front, front_text(reports))
        return reports


def _go(runs: tuple[Run, ...]) -> tuple[Report, ...]:
    if runs[0].options.data is None:
        return tuple(_without_data(run) for run in runs)
    images = load_all(runs[0])
    with ExitStack() as stack:
        for run in runs:
            stack.enter_context(run.run_dir.alone(run.output))
            run.run_dir.create(run.options)
        return _with_data(runs, measure(runs[0], images))


def _with_data(runs: tuple[Run, ...], ground: Ground) -> tuple[Report, ...]:
    reports: tuple[Report, ...] = ()
    known: tuple[Trial, ...] = ()
    for run in runs:
        result = seek(run, ground, known)
        known = (*known, *result.trials)
        reports = (*reports, finish(run, _recover(run, ground, result)))
    return reports


def _without_data(run: Run) -> Report:
    calibration = calibrate(run.graph, run.index, None, seed=run.options.seed)
    widths = one_policy(pose(run, calibration, Past()), run.options.search)
    mask = calibration.mask(widths)
    proto = cut(run.graph, run.index, mask)
    undecided = _undecided(run, calibration, mask)
    return finish(run, Slim(mask, proto, {}, SearchResult((), (widths,)), undecided=undecided))


def _undecided(run: Run, calibration: Calibration, mask: Mask) -> tuple[str, ...]:
    blind = [run.index.groups[i] for i in calibration.sensitivity.blind]
    return tuple(group.name for group in blind if not mask[group.span].all())


def _recover(run: Run, ground: Ground, result: SearchResult) -> Slim:
    start, images = time.perf_counter(), ground.images
    choice = choose(run, ground.scorer, result)
    run.seconds["recovery"] = time.perf_counter() - start
    mask, weights = ground.calibration.mask(choice.widths), choice.weights
    proto = cut(run.graph, run.index, mask, weights)
    before = unseen(run, images, proto, "Scoring the slim model on unseen images")
    slim = Slim(
        mask,
        proto,
        weights,
        result,
        choice.recovery,
        images,
        (images.baseline, before, before),
        undecided=_undecided(run, ground.calibration, mask),
    )
    if not run.options.finetune:
        return slim
    trained, record = _finetune(run, images, proto)
    after = unseen(run, images, trained, "Scoring the result on unseen images")
    return replace(slim, proto=trained, weights=None, accuracies=(images.baseline, before, after), finetune=record)


def unseen(run: Run, images: Images, slim: ModelProto, text: str) -> float:
    """Returns the score of a slim model on the images that nothing else has seen."""
    with run.progress.task(text) as update:
        return score_outputs(predict(run.graph, slim, images.final, progress=update), images.final_truth).value


def _finetune(run: Run, images: Images, slim: ModelProto) -> tuple[ModelProto, dict[str, Any]]:
    from bocr_onnx.api.train import finetune_slim
    from bocr_onnx.options import FinetuneSettings

    start = time.perf_counter()
    if not run.resuming:
        run.run_dir.checkpoint.unlink(missing_ok=True)
    teacher = run.teacher or run.graph
    trained, record = finetune_slim(
        teacher,
        slim,
        images.data,
        images.split,
        images.score,
        settings=FinetuneSettings(epochs=run.options.finetune, seed=run.options.seed),
        progress=run.progress,
        checkpoint=run.run_dir.checkpoint,
    )
    run.seconds["finetune"] = time.perf_counter() - start
    if str(record.get("stopped", "")).startswith("interrupted"):
        raise KeyboardInterrupt  # the checkpoint is kept; an undertrained model is not a result
    return trained, record


def finish(run: Run, slim: Slim) -> Report:
    """Proves and writes the slim model of a run, and returns its report."""
    options, images = run.options, slim.images
    emission = Emission(
        graph=run.graph,
        index=run.index,
        cost=run.cost,
        inspection=inspect_graph(run.graph, run.index, run.cost),
        mask=slim.mask,
        slim=slim.proto,
        weights=slim.weights,
        output=run.output,
        run_dir=run.run_dir,
        options=options,
        budget=run.projection.budget,
        accuracies=slim.accuracies,
        metric="" if images is None else images.data.metric,
        data={} if images is None else images.record(),
        search=_search_record(run, slim),
        finetune=slim.finetune,
        seconds={k: round(v, 3) for k, v in run.seconds.items()},
        threads=options.threads,
    )
    return emit(emission, run.progress)


def _search_record(run: Run, slim: Slim) -> dict[str, Any]:
    options, trials = run.options, slim.result.trials
    return {
        "strategy": options.search,
        "trials": len(trials),
        "states": {s.value: n for s in TrialState if (n := sum(t.state is s for t in trials))},
        "seed": options.seed,
        "seconds": round(run.seconds.get("search", 0.0), 3),
        "evaluation_s": round(sum(t.seconds for t in trials), 3),
        "proposal_s": round(sum(t.proposal_s for t in trials), 3),
        "grid": options.grid,
        "recover": slim.recovery,
        "undecided": list(slim.undecided),
        **({"trials": sum(r["trials"] for r in slim.rounds), "rounds": list(slim.rounds)} if slim.rounds else {}),
    }
