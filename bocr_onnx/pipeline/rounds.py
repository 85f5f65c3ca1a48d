"""Pruning in rounds: each one searches, recovers and trains the model that the round before has left.

The share that round k of K keeps of the original is B^(k / K), so that every round keeps the same share of what
it gets. All rounds learn from the original; the plan and the proof at the end are those of the original too. Images are
loaded once; a round begins with the file that the one before has written, so that a resumed run goes on with the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from bocr_onnx.cost import QUANTITIES, prunable
from bocr_onnx.errors import ResumeError
from bocr_onnx.graph import ModelGraph
from bocr_onnx.groups import build_index
from bocr_onnx.options import PruneOptions
from bocr_onnx.pipeline.finish import prove, report, write
from bocr_onnx.pipeline.loaded import Images
from bocr_onnx.pipeline.measure import load, measure
from bocr_onnx.pipeline.model import read_model
from bocr_onnx.pipeline.prepare import begin
from bocr_onnx.pipeline.recover import unseen
from bocr_onnx.pipeline.run import Run, Slim
from bocr_onnx.pipeline.rundir import RunDir
from bocr_onnx.pipeline.stages import EMIT, FINISH, SHAPE, go, reported
from bocr_onnx.report import Report
from bocr_onnx.slimming import Mask, read_plan

ROUND = {"calibration": measure, **SHAPE, **EMIT, "report": report}
"""The stages of a round; its model is an intermediate one, so that its latency says nothing."""


def run_rounds(run: Run) -> Report:
    """Runs one budget in rounds and returns the report on the whole of it.

    Every round has a folder in the run directory; a resumed run goes on in the round that was cut off.

    Args:
        run: The whole of it.
    """
    asked = run.options
    with run.run_dir.alone(run.output):
        run.run_dir.create(asked)
        run = go(run, {"data": load})
        assert run.images is not None
        graph, mask = run.graph, np.ones(run.index.n_channels, dtype=bool)
        rounds: list[dict[str, Any]] = []
        for number in range(1, asked.rounds + 1):
            folder = RunDir(run.run_dir.path / f"step_{number}")
            part = part_of(run, number, rounds[-1] if rounds else None, folder)
            run.progress.note(f"round {number} of {asked.rounds}")
            start = rounds[-1]["result"]["accuracy"] if rounds else run.images.baseline
            images = replace(run.images, baseline=start)
            rounds.append(_round(run, part, graph, folder, images))
            mask = _composed(run, mask, graph, folder)
            graph = read_model(folder.path / "slim.onnx", run.graph.input_shapes)
        last = rounds[-1]
        score, outputs = unseen(run, graph.proto, "Scoring the result on unseen images")
        slim = Slim(
            mask,
            graph.proto,
            weights=None,
            recovery=asked.recover,
            before=last["result"]["accuracy_before_finetune"],
            after=score,
            outputs=outputs,
            finetune=last["finetune"],
        )
        whole = replace(run, slim=slim, rounds=tuple(r["search"] for r in rounds))
        return reported(go(whole, {"proof": prove, "write": write, **FINISH}))


def part_of(run: Run, number: int, last: Mapping[str, Any] | None, folder: RunDir) -> PruneOptions:
    """Returns the options of a round; its budget is a share of what the round before has left.

    Args:
        run: The whole of it.
        number: Number of the round, from 1.
        last: Report of the round before; None for the first one.
        folder: Run directory of the round.
    """
    n = run.options.rounds
    bounds = {}
    for name, share in run.projection.budget.shares.items():
        quantity = QUANTITIES[name]
        left = last["result"][quantity.field] / quantity.of(run.cost) if last else 1.0
        bounds[name] = share ** (number / n) / left
    return run.run_dir.named(run.options).part(number - 1, n, bounds, str(folder.path / "slim.onnx"))


def _round(run: Run, part: PruneOptions, graph: ModelGraph, folder: RunDir, images: Images) -> dict[str, Any]:
    """Returns the report of a round, which is not run again where it was finished."""
    if not (run.resuming and folder.report_json.exists()):
        folder.make()
        begun = begin(part, prunable(graph), folder, run.history)
        begun = replace(begun, progress=run.progress, teacher=run.graph, images=images)
        with folder.alone(begun.output):
            folder.create(part)
            go(begun, ROUND)
    try:
        record: dict[str, Any] = json.loads(folder.report_json.read_text(encoding="utf-8"))
        return record
    except (OSError, ValueError) as error:
        raise ResumeError(
            f"{folder.report_json} must be the report of a round, got: {error}",
            hint=f"Delete {folder.path} to run that round again.",
        ) from error


def _composed(run: Run, mask: Mask, graph: ModelGraph, folder: RunDir) -> Mask:
    """Returns which channels of the original are left after one more round.

    Args:
        run: The whole of it.
        mask: Channels that were left before.
        graph: Model that the round began with; its groups have the names of the original's.
        folder: Run directory of the round.
    """
    inner = build_index(graph)
    kept = read_plan(folder.plan, inner, strict=True).mask(inner)
    whole = mask.copy()
    spans = {group.name: group.span for group in run.index.groups}
    for group in (g for g in inner.groups if g.name in spans):
        span = spans[group.name]
        whole[span.start + np.flatnonzero(mask[span])[~kept[group.span]]] = False
    return whole
