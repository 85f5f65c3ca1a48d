"""A run: one model and one budget, known to be usable before anything is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from bocr_onnx.api.history import History, check_transfer, open_history
from bocr_onnx.api.inspection import Inspection, inspect_graph, match_groups
from bocr_onnx.api.model import read_model
from bocr_onnx.api.outputs import check_outputs
from bocr_onnx.api.rundir import RunDir, folder_of, open_images, output_of
from bocr_onnx.api.sized import read_for_images
from bocr_onnx.cost import CostModel, build_cost_model
from bocr_onnx.data import Pools, Samples, split
from bocr_onnx.errors import HistoryError, UsageError
from bocr_onnx.graph import ModelGraph, check_writable
from bocr_onnx.groups import GroupIndex, build_index
from bocr_onnx.options import PruneOptions
from bocr_onnx.progress import Progress, Silent
from bocr_onnx.search import Budget, PastSearch, Projection, build_space
from bocr_onnx.search.strategies import MIN_TRIALS
from bocr_onnx.search.workers import check_ray

MAX_NAMED = 3
"""Refusals that are named where a budget cannot be reached."""


@dataclass(slots=True)
class Run:
    """What is known before the search.

    Attributes:
        options: What was asked for; of several budgets this one, with its share of the trials.
        graph: The original.
        index: Its groups.
        cost: Its cost model.
        projection: Space and budget.
        progress: Shows long steps.
        output: The slim file.
        run_dir: Where plan, journal and report go.
        history: Store of past searches; None if none is to be used.
        resuming: Whether the journal must belong to this run.
        teacher: What finetuning learns from; None for the original.
        seconds: Wall time of stages, filled on the way.
    """

    options: PruneOptions
    graph: ModelGraph
    index: GroupIndex
    cost: CostModel
    projection: Projection
    progress: Progress
    output: Path
    run_dir: RunDir
    history: History | None
    resuming: bool
    teacher: ModelGraph | None = None
    seconds: dict[str, float] = field(default_factory=dict)


def prepare(options: PruneOptions) -> tuple[Run, ...]:
    """Returns one run for each budget, the most generous first; nothing is written yet.

    Several budgets get a file and a folder each, named after them.

    Raises:
        BocrError: An option, the model, a budget or a place to write to cannot be used.
    """
    check_together(options)
    check_ray(options.ray)
    progress, resuming = options.progress or Silent(), options.resume is not None
    graph = _read(options, progress)
    if options.finetune:
        from bocr_onnx.api.train import check_trainable

        check_trainable(graph)
    path, folder = output_of(options), folder_of(options)
    index = build_index(graph)
    cost = build_cost_model(graph, index)
    space = build_space(index, grid=options.grid, frozen=_frozen(index, options), min_width=options.min_width)
    history, others = _remembered(options, graph, progress)
    if not resuming:
        check_transfer(options, others)
    budgets, runs = options.budgets, []
    top = RunDir(folder)
    shared = () if len(budgets) == 1 else (top.path, top.options, top.front)
    inputs = () if history is None else (history.path,)
    for i, bounds in enumerate(budgets):
        budget = Budget(bounds)
        budget.check_reachable(cost, space, _further(options, inspect_graph(graph, index, cost)))
        alone = len(budgets) == 1
        output = check_writable(path if alone else path.with_name(f"{path.stem}_{budget.label}{path.suffix}"))
        own = RunDir(folder if alone else folder / budget.label)
        check_outputs(graph, output, (*own.files, *shared), inputs=inputs)
        part = options if alone else options.part(i, len(budgets), bounds, str(output))
        projection = Projection(space, cost, budget)
        runs.append(Run(part, graph, index, cost, projection, progress, output, own, history, resuming))
    return tuple(runs)


def check_together(options: PruneOptions) -> None:
    """Checks what no option can be checked for alone.

    Raises:
        UsageError: Options contradict each other.
    """
    options.check_read_by(options.search)
    if options.rounds > 1 and len(options.budgets) > 1:
        raise UsageError("`rounds` must go towards one budget, got several")
    needed = MIN_TRIALS.get(options.search, 1) * len(options.budgets) * options.rounds
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


def _remembered(
    options: PruneOptions, graph: ModelGraph, progress: Progress
) -> tuple[History | None, tuple[PastSearch, ...]]:
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


def _read(options: PruneOptions, progress: Progress) -> ModelGraph:
    """Returns the model, its open axes at the size of the images where there are any."""
    if options.data is None:
        return read_model(options.model, options.input_shapes, note=progress.note)

    def source() -> tuple[Pools, Samples]:
        pools = open_images(options)
        return pools, split(pools, seed=options.seed, **options.n_images).score

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
