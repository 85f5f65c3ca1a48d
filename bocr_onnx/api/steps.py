"""Pruning in rounds: each one searches, recovers and trains on what the round before has left.

The share that round k of K keeps of the original is B^(k / K), so that every round keeps the same share of what
it gets. All rounds learn from the original; the plan and the proof at the end are those of the original too.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np

from bocr_onnx.api.ground import load_all
from bocr_onnx.api.model import read_model
from bocr_onnx.api.road import Slim, finish, travel, unseen
from bocr_onnx.api.run import Run, prepare
from bocr_onnx.api.rundir import RunDir
from bocr_onnx.cost import QUANTITIES
from bocr_onnx.errors import ResumeError
from bocr_onnx.graph import ModelGraph, load
from bocr_onnx.groups import build_index
from bocr_onnx.options import PruneOptions
from bocr_onnx.report import Report
from bocr_onnx.search import SearchResult
from bocr_onnx.slimming import Mask, read_plan


def travel_in_steps(run: Run, asked: PruneOptions) -> Report:
    """Goes the road of one budget in rounds and returns the report on the whole of it.

    Every round has a folder in the run directory; a resumed run goes on in the round that was cut off.

    Args:
        run: The whole of it; its own road is not gone.
        asked: What was asked for.
    """
    with run.run_dir.alone(run.output):
        run.run_dir.create(asked)
        images = load_all(run)
        folders: list[RunDir] = []
        rounds: list[dict[str, Any]] = []
        model = str(asked.model)
        for number in range(1, asked.rounds + 1):
            folder = RunDir(run.run_dir.path / f"step_{number}")
            part = _part(run, asked, number, model, rounds, folder)
            run.progress.note(f"round {number} of {asked.rounds}")
            rounds.append(_round(part, folder, run.graph, resuming=run.resuming))
            folders.append(folder)
            model = str(part.output)
        trained = read_model(model, run.graph.input_shapes)
        after = unseen(run, images, trained.proto, "Scoring the result on unseen images")
        done = Slim(
            mask=_composed(run, str(asked.model), folders),
            proto=trained.proto,
            weights=None,
            result=SearchResult((), ()),
            recovery=asked.recover,
            images=images,
            accuracies=(images.baseline, rounds[-1]["result"]["accuracy_before_finetune"], after),
            finetune=rounds[-1]["finetune"],
            rounds=tuple(r["search"] for r in rounds),
        )
        return finish(run, done)


def _part(
    run: Run, asked: PruneOptions, number: int, model: str, rounds: list[dict[str, Any]], folder: RunDir
) -> PruneOptions:
    """Returns the options of a round; its budget is a share of what the round before has left."""
    share_of = run.projection.budget.shares.items()
    left = rounds[-1]["result"] if rounds else None
    whole = run.cost.cost(run.cost.full)
    bounds = {
        name: share ** (number / asked.rounds)
        / (left[QUANTITIES[name].field] / QUANTITIES[name].of(whole) if left else 1.0)
        for name, share in share_of
    }
    part = asked.part(number - 1, asked.rounds, bounds, str(folder.path / "slim.onnx"))
    begun = run.resuming and folder.options.exists()
    return replace(part, model=model, run_dir=folder.path, resume=folder.path if begun else None)


def _round(part: PruneOptions, folder: RunDir, teacher: ModelGraph, *, resuming: bool) -> dict[str, Any]:
    """Returns the report of a round, which is not gone again where it was finished."""
    if not (resuming and folder.report_json.exists()):
        folder.make()
        (run,) = prepare(part)
        travel((replace(run, teacher=teacher),), part)
    try:
        record: dict[str, Any] = json.loads(folder.report_json.read_text(encoding="utf-8"))
        return record
    except (OSError, ValueError) as error:
        raise ResumeError(
            f"{folder.report_json} must be the report of a round, got: {error}",
            hint=f"Delete {folder.path} to go that round again.",
        ) from error


def _composed(run: Run, model: str, folders: list[RunDir]) -> Mask:
    """Returns which channels of the original the rounds have left together."""
    index = run.index
    kept = {group.name: np.arange(group.n_channels) for group in index.groups}
    for folder in folders:
        graph = load(model, run.graph.input_shapes)
        inner = build_index(graph)
        mask = read_plan(folder.plan, graph, inner, strict=True).mask(inner)
        kept |= {g.name: kept[g.name][mask[g.span]] for g in inner.groups if g.name in kept}
        model = str(folder.path / "slim.onnx")
    whole = np.zeros(index.n_channels, dtype=bool)
    for group in index.groups:
        whole[group.span][kept[group.name]] = True
    return whole
