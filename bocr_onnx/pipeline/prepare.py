"""Before the first stage: a model and its budgets, known to be usable before anything is written."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import replace

from bocr_onnx.cost import LatencyModel, Prunable, prunable, read_latency
from bocr_onnx.data import Pools, Samples, split
from bocr_onnx.devices import Request, default_file, open_device, probe, remember, remembered_grid
from bocr_onnx.errors import BudgetError, HistoryError, ResumeError, UsageError
from bocr_onnx.graph import ModelGraph, check_writable
from bocr_onnx.groups import GroupIndex
from bocr_onnx.options import MAX_BUDGETS, PruneOptions
from bocr_onnx.pipeline.history import check_transfer, open_history
from bocr_onnx.pipeline.inspection import Inspection, inspect_graph, match_groups
from bocr_onnx.pipeline.model import read_model
from bocr_onnx.pipeline.outputs import check_outputs
from bocr_onnx.pipeline.places import int8_of
from bocr_onnx.pipeline.quantize import int8_form
from bocr_onnx.pipeline.run import Run
from bocr_onnx.pipeline.rundir import RunDir, folder_of, open_images, output_of
from bocr_onnx.pipeline.sized import read_for_images
from bocr_onnx.pipeline.timing import as_it_is, shares_of, timed
from bocr_onnx.progress import Progress, shown
from bocr_onnx.search import Budget, PriorSearch, Projection, SearchSpace, build_space
from bocr_onnx.search.history import History
from bocr_onnx.search.strategies import STRATEGIES
from bocr_onnx.search.workers import check_ray
from bocr_onnx.tasks import find_task

MAX_NAMED = 3
"""Refusals that are named where a budget cannot be reached."""


def prepare(options: PruneOptions) -> tuple[Run, ...]:
    """Returns one run for each budget, the most generous first; nothing is written yet.

    Several budgets get a file and a folder each, named after them.

    Raises:
        BocrError: An option, the model, a budget or a place to write to cannot be used.
    """
    check_together(options)
    check_ray(options.ray)
    progress = shown(options.progress)
    options = _on_its_grid(options, progress)
    opened = functools.cache(lambda: open_images(options))
    graph = _read(options, opened, progress)
    if options.data is not None:
        # so that a model that cannot be scored is refused before images are loaded
        task = find_task(graph, options.task, weights=options.output_weights, layout=options.layout)
        if options.finetune:
            from bocr_onnx.pipeline.training import check_trainable

            check_trainable(graph, task)
    top = RunDir(folder_of(options))
    options, model = _timed(options, prunable(graph), top, progress)
    history, others = _remembered(options, graph, progress)
    if options.resume is None:
        check_transfer(options, others)
    runs = [begin(part, model, folder, history) for part, folder in _parts(options, top)]
    for run in runs:
        shared = () if len(runs) == 1 else (top.path, top.options, top.front)
        inputs = () if history is None else (history.path,)
        further = (int8_of(run.output),) if options.int8 else ()
        check_outputs(graph, run.output, (*run.run_dir.files, *shared, *further), inputs=inputs)
    return tuple(replace(run, pools=None if options.data is None else opened()) for run in runs)


def _on_its_grid(options: PruneOptions, progress: Progress) -> PruneOptions:
    """Returns options with the channel grid of their device, where it was measured and they leave it open.

    A device that cannot be reached is an error now, before a search is paid for.
    """
    device = open_device(options.device)
    machine = device.check()
    if options.device != "host":
        progress.note(f"device: {options.device}, {machine.cpu or machine.architecture}")
    grid = remembered_grid(default_file(), device, machine) if options.round_to == "auto" else None
    if grid is None and options.round_to == "auto" and options.bounds_latency:
        with progress.task(f"Measuring the channel grid of {options.device}") as update:
            found = probe(device, update)
        remember(default_file(), device, machine, found)
        grid = found.grid
    if grid is None:
        return options
    progress.note(f"channel grid: {grid}, as `device check {options.device}` has measured it")
    return replace(options, round_to=grid)


def _parts(options: PruneOptions, top: RunDir) -> list[tuple[PruneOptions, RunDir]]:
    """Returns the options and the run directory of every budget."""
    path, budgets = output_of(options), [Budget(bounds) for bounds in options.budgets]
    if len(budgets) == 1:
        return [(options, top)]
    named = top.named(options)
    outputs = [str(path.with_name(f"{path.stem}_{budget.label}{path.suffix}")) for budget in budgets]
    return [
        (named.part(i, len(budgets), budget.shares, outputs[i]), RunDir(top.path / budget.label))
        for i, budget in enumerate(budgets)
    ]


def begin(options: PruneOptions, model: Prunable, run_dir: RunDir, history: History | None) -> Run:
    """Returns the run of one budget before its first stage.

    Args:
        options: Options with one budget.
        model: The model that is pruned.
        run_dir: Its run directory.
        history: Store of past searches.

    Raises:
        BocrError: The budget cannot be reached, a pattern matches no group, or the output cannot be written.
    """
    index = model.index
    space = _space(index, options)
    (bounds,) = options.budgets
    budget = Budget(bounds)
    budget.check_reachable(model.cost, space, _further(options, inspect_graph(model)))
    return Run(
        options=options,
        model=model,
        projection=Projection(space, model.cost, budget),
        progress=shown(options.progress),
        output=check_writable(output_of(options)),
        run_dir=run_dir,
        history=history,
        resuming=options.resume is not None,
        teacher=model.graph,
    )


def _space(index: GroupIndex, options: PruneOptions) -> SearchSpace:
    return build_space(index, grid=options.grid, frozen=_frozen(index, options), min_width=options.min_width)


def _timed(options: PruneOptions, model: Prunable, top: RunDir, progress: Progress) -> tuple[PruneOptions, Prunable]:
    """Returns options with latencies as shares, and the model with the latency of its policies; a resumed run's own.

    Raises:
        BudgetError: A latency is not below the original's.
        DeviceError: The device is lost.
        ResumeError: The timings of a resumed run cannot be read.
    """
    if not options.bounds_latency:
        return options, model
    if options.resume is not None and top.timing.exists():
        model = replace(model, cost=replace(model.cost, latency=_read_timing(top)))
    else:
        batch = 1 if model.graph.batch_is_symbolic() else model.graph.batch
        request = Request(options.threads, batch)
        space, device = _space(model.index, options), open_device(options.device)
        form = int8_form(model.graph, device, request) if options.int8 else as_it_is
        model = timed(model, space, device, request, options.seed, progress, form)
    found = model.cost.latency
    assert found is not None
    latencies = options.latency if isinstance(options.latency, tuple) else ()
    shares = shares_of(latencies, found)
    original = "the original in int8" if options.int8 else "the original"
    progress.note(f"latency of {original} on {options.device}: {found.full_ms:.3g} ms; predictions are off by "
                  f"{found.error:.1%}, kernels work on blocks of {found.block} channels")  # fmt: skip
    for asked, share in zip(latencies, shares, strict=True):
        if share >= 1:
            raise BudgetError(f"`latency={asked}` must be below that of the original, {found.full_ms:.4g} ms")
    return replace(options, latency=shares or None), model


def _read_timing(top: RunDir) -> LatencyModel:
    try:
        return read_latency(json.loads(top.timing.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise ResumeError(f"{top.timing} must hold the timings of the run, got: {error}") from error


def check_together(options: PruneOptions) -> None:
    """Checks what no option can be checked for alone.

    Raises:
        UsageError: Options contradict each other.
    """
    options.check_read_by(options.search)
    if options.rounds > 1 and len(options.budgets) > 1:
        raise UsageError("`rounds` must go towards one budget, got several")
    if options.rounds > 1 and options.latency is not None:
        raise UsageError("`rounds` must go towards a budget that is counted, got `latency`")
    _check_floor(options)
    n_searches = MAX_BUDGETS if options.has_floor else len(options.budgets) * options.rounds
    needed = STRATEGIES[options.search].min_trials * n_searches
    if options.trials < needed:
        raise UsageError(
            f"`trials` must be at least {needed} for `search={options.search}`"
            f"{f' in {options.rounds} rounds' if options.rounds > 1 else ''}, got {options.trials}"
        )
    if options.data is not None:
        return
    if options.rounds > 1:
        raise UsageError("`rounds` must have images to recover and score with, got no `data`")
    if options.search != "uniform":
        raise UsageError(
            f"`search={options.search}` must have images to score with, got no `data`",
            hint="Give `data=PATH` (labels are not needed), or `search=uniform`",
        )
    if options.finetune:
        raise UsageError("`finetune` must have images to train on, got no `data`")
    if options.int8:
        raise UsageError("`int8` must have images to calibrate with, got no `data`")


def _check_floor(options: PruneOptions) -> None:
    if not options.has_floor:
        return
    named = "max_drop" if options.max_drop is not None else "min_score"
    if options.max_drop is not None and options.min_score is not None:
        raise UsageError("one of `max_drop` and `min_score` must be given, got both")
    if options.data is None:
        raise UsageError(f"`{named}` must have images to score with, got no `data`")
    if getattr(options, options.minimize) is not None:
        raise UsageError(
            f"`{named}` finds the share of `{options.minimize}` itself, got `{options.minimize}`",
            hint="Leave it out, or name another quantity: `minimize=latency`",
        )
    if options.rounds > 1 or len(options.budgets) > 1:
        raise UsageError(f"`{named}` must go with one round and single budgets, got several")


def _remembered(
    options: PruneOptions, graph: ModelGraph, progress: Progress
) -> tuple[History | None, tuple[PriorSearch, ...]]:
    """Returns the history and what it knows of other models; none, with a note, where the default cannot be opened.

    Raises:
        HistoryError: A history that the user has named, or whose searches are to be transferred, cannot be opened.
    """
    history = open_history(options.history)
    try:
        return history, () if history is None else history.others(graph.sha256)
    except HistoryError as error:
        if options.history is not None or options.transfer != "none":
            raise
        progress.note(f"no history: {error.message}")
        return None, ()


def _read(options: PruneOptions, opened: Callable[[], Pools], progress: Progress) -> ModelGraph:
    """Returns the model, its open axes at the size of the images where there are any."""
    if options.data is None:
        return read_model(options.model, options.input_shapes, note=progress.note)

    def source() -> tuple[Pools, Samples]:
        return opened(), split(opened(), seed=options.seed, **options.n_images).score

    return read_for_images(options.model, source, options.preprocessing, options.input_shapes, note=progress.note)


def _further(options: PruneOptions, inspection: Inspection) -> str:
    """Returns what keeps a budget out of reach: the grid, the user's own options, and the refusals that cost most."""
    hints = ["A finer grid reaches further: `round_to=1`."] if options.grid > 1 else []
    own = {"`freeze`": options.freeze, "`only`": options.only, "`min_width`": options.min_width > 1}
    if given := [name for name, value in own.items() if value]:
        hints.append(f"{' and '.join(given)} also keep channels.")
    refused = sorted(zip(inspection.refusal_shares, inspection.refusals, strict=True), key=lambda pair: -pair[0])
    costly = [f"{r.node} ({share:.0%} of the MACs; {r.reason})" for share, r in refused[:MAX_NAMED] if share >= 0.005]
    return " ".join([*hints, *([f"Left alone: {', '.join(costly)}."] if costly else [])])


def _frozen(index: GroupIndex, options: PruneOptions) -> tuple[str, ...]:
    """Returns the names of the groups that keep all channels because the user says so."""
    frozen = match_groups(index, options.freeze, "freeze")
    if not options.only:
        return frozen
    chosen = set(match_groups(index, options.only, "only")) - set(frozen)
    return tuple(group.name for group in index.groups if group.name not in chosen)
