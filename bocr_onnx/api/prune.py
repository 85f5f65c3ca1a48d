"""An ONNX file, images and a budget become a slim ONNX file with proof and figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from bocr_onnx.errors import UsageError
from bocr_onnx.options import PruneOptions, keywords, options_of
from bocr_onnx.pipeline.cheapest import run_floor
from bocr_onnx.pipeline.prepare import prepare
from bocr_onnx.pipeline.rounds import run_rounds
from bocr_onnx.pipeline.rundir import RunDir
from bocr_onnx.pipeline.stages import run_budgets
from bocr_onnx.report import Report

MAY_CHANGE = frozenset({"model", "output", "threads", "workers", "ray", "history", "memory"})
"""Options that a run may have others of when it is resumed."""


@keywords(PruneOptions)
def prune(options: PruneOptions) -> Report:
    """Writes a physically slimmer ONNX file and returns the report on it.

    Args: from the record.

    Returns:
        The report, whose `missed` lists targets and checks that were not met.

    Raises:
        BocrError: See `bocr_onnx.errors` for the tree; nothing half-written is left.
        KeyboardInterrupt: The search was interrupted; its trials are in the run directory.
    """
    if len(options.budgets) > 1:
        raise UsageError("prune must have one budget, got several", hint="bocr_onnx.prune_each takes several.")
    return prune_each.run(options)[0]


@keywords(PruneOptions)
def prune_each(options: PruneOptions) -> tuple[Report, ...]:
    """Writes one slim ONNX file for each budget and returns their reports, the most generous budget first.

    The budgets share images, calibration and evaluations: what a policy scored at one budget teaches the search at
    the next.

    Args: from the record.

    Returns:
        The reports; each has its file and run directory named after its budget.

    Raises:
        BocrError: See `bocr_onnx.errors` for the tree; nothing half-written is left.
        KeyboardInterrupt: The search was interrupted; its trials are in the run directory.
    """
    if options.resume is not None:
        options = _resumed(Path(options.resume), options)
    runs = prepare(options)
    if options.has_floor:
        return (run_floor(runs[0]),)
    return (run_rounds(runs[0]),) if options.rounds > 1 else run_budgets(runs, options)


def _resumed(path: Path, asked: PruneOptions) -> PruneOptions:
    """Returns the options of a run, with more trials where these are asked for.

    Raises:
        UsageError: Another option is asked for than the run has.
    """
    kept, changed = RunDir(path).read_options(PruneOptions), {}
    for option in (o for o in options_of(PruneOptions) if o.name != "model"):
        value, before = getattr(asked, option.name), getattr(kept, option.name)
        if option.flag.stored and value in (option.default, before):
            continue
        more = option.name == "trials" and asked.trials > kept.trials
        if option.flag.stored and option.name not in MAY_CHANGE and not more:
            raise UsageError(
                f"`{option.name}` must stay as it was in the run that is resumed, "
                f"{_shown(before)}, got {_shown(value)}",
                hint="Leave it out; more `trials`, another `output` and other machines may be asked for.",
            )
        changed[option.name] = value
    return replace(kept, **changed, model=asked.model)


def _shown(value: Any) -> str:
    """Returns the value of an option as it is typed; words where it is not given."""
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "not given"
    return "not given" if value in (None, "") else str(value)[:60]
