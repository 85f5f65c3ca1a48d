"""The stages of a run, each from a frozen run to a frozen run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from bocr_onnx.graph import write_text
from bocr_onnx.options import PruneOptions
from bocr_onnx.pipeline.deployed import add_int8, emit_ort
from bocr_onnx.pipeline.finetune import finetune
from bocr_onnx.pipeline.finish import benchmark, prove, report, write
from bocr_onnx.pipeline.measure import load, measure
from bocr_onnx.pipeline.recover import recover
from bocr_onnx.pipeline.run import Run
from bocr_onnx.pipeline.rundir import RunDir
from bocr_onnx.pipeline.search import search
from bocr_onnx.pipeline.timing import settle
from bocr_onnx.report import Report, front_text

Stages = dict[str, Callable[[Run], Run]]
"""Stages in their order, by the name under which the report gives their seconds."""

SHAPE: Stages = {"search": search, "timing": settle, "recovery": recover, "finetune": finetune}
"""From a measured model to a slim one."""

EMIT: Stages = {"proof": prove, "write": write}
"""From a slim model to a file."""

FINISH: Stages = {"int8": add_int8, "mobile": emit_ort, "latency": benchmark, "report": report}
"""From a slim file to the report on it."""


def go(run: Run, stages: Stages) -> Run:
    """Returns the run after some stages, with their wall time."""
    for name, stage in stages.items():
        start = time.perf_counter()
        after = stage(run)
        seconds = time.perf_counter() - start
        if after is not run:
            run.progress.detail(f"{name}: {seconds:.1f} s")
            run = replace(after, seconds={**after.seconds, name: round(seconds, 3)})
    return run


def reported(run: Run) -> Report:
    """Returns the report of a run that has come to its end."""
    assert run.report is not None
    return run.report


def run_budgets(runs: tuple[Run, ...], asked: PruneOptions) -> tuple[Report, ...]:
    """Runs every budget of one model through all stages; later ones know the evaluations of earlier ones.

    Args:
        runs: One for each budget.
        asked: The options, of all budgets together.
    """
    if len(runs) == 1:
        return _go_all(runs)
    top = RunDir(runs[0].run_dir.path.parent)
    with top.alone():
        create(top, asked, runs[0])
        reports = _go_all(runs)
        write_text(top.front, front_text(reports))
        return reports


def _go_all(runs: tuple[Run, ...]) -> tuple[Report, ...]:
    first = go(runs[0], {"data": load})
    with ExitStack() as stack:
        for run in runs:
            stack.enter_context(run.run_dir.alone(run.output))
            create(run.run_dir, run.options, run)
        first = go(first, {"calibration": measure})
        done: tuple[Run, ...] = ()
        for run in (first, *(run.measured_as(first) for run in runs[1:])):
            known = tuple(trial for other in done for trial in other.result.trials)
            done = (*done, go(replace(run, known=known), SHAPE | EMIT | FINISH))
        return tuple(map(reported, done))


def create(folder: RunDir, options: PruneOptions, run: Run) -> None:
    """Makes the folder of a run, with its options and, where latency is bounded, its timings."""
    folder.create(options)
    if run.cost.latency is not None:
        write_text(folder.timing, json.dumps(run.cost.latency.as_json()) + "\n")
