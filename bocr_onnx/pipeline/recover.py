"""The stage after the search: which finalist, and with which recovery."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from onnx import ModelProto

from bocr_onnx.cost import Widths
from bocr_onnx.data import joined, part
from bocr_onnx.options import Recovery
from bocr_onnx.pipeline.rebuild import rebuild
from bocr_onnx.pipeline.run import Run, Slim
from bocr_onnx.recovery import PolicyScorer, Weights
from bocr_onnx.runtime import predict_heads, session_threads
from bocr_onnx.search import SearchResult
from bocr_onnx.slimming import cut
from bocr_onnx.tasks import fidelity

COMPARED: dict[Recovery, Recovery] = {"blockwise": "sequential"}
"""Recovery after which finalists are compared, where it is not the one that was asked for."""

WEAKER: dict[Recovery, Recovery] = {"sequential": "oneshot"}
"""What is tried of the best finalist too: fitted layer by layer on few images, a model without residual streams may end
further from the original than in one shot."""

N_COMPARED = 300
"""Recovery images by which finalists are compared that are reconstructed afterwards."""

Tried = dict[Recovery, tuple[float, Weights]]
"""Distortion on the search images, and weights, after each recovery that was tried."""

Choice = tuple[Widths, Weights, Recovery]
"""Kept channels of every group, weights that recovery has set, and which recovery it was."""


def recover(run: Run) -> Run:
    """Returns the run with its slim model: the best finalist, cut and recovered."""
    assert run.calibration is not None
    if run.scorer is None:
        (widths,) = run.result.finalists
        return replace(run, slim=_slim(run, widths, {}, "none"))
    return replace(run, slim=_scored(run, _slim(run, *choose(run, run.scorer, run.result))))


def choose(run: Run, scorer: PolicyScorer, result: SearchResult) -> Choice:
    """Returns the finalist that is nearest to the original after recovery, on the search images.

    It is recovered once more, on the search images too: now that nothing is chosen by them, they may teach.
    """
    widths, tried = _tried(run, scorer, result)
    if run.options.recover == "blockwise":
        rebuilt = rebuild(run, scorer, widths, tried)
        if rebuilt is not None:
            return widths, rebuilt, "blockwise"
    recovery = min(tried, key=lambda r: tried[r][0])
    weights = tried[recovery][1]
    if recovery != "sequential":
        return widths, weights, recovery
    calibration = scorer.calibration
    assert calibration.images is not None
    taught = replace(calibration, images=joined(calibration.images, scorer.images))
    with run.progress.task("Recovering the result on all images") as update, session_threads(scorer.threads):
        return widths, taught.recover(calibration.mask(widths), "sequential", update), recovery


def _tried(run: Run, scorer: PolicyScorer, result: SearchResult) -> tuple[Widths, Tried]:
    """Returns the best finalist, and its distortion on the search images and weights after each recovery."""
    if run.options.recover == "blockwise" and scorer.calibration.images is not None:
        few = part(scorer.calibration.images, 0, N_COMPARED)
        scorer = replace(scorer, calibration=replace(scorer.calibration, images=few))
    recovery, n = COMPARED.get(run.options.recover, run.options.recover), len(result.finalists)
    found = [_recovered(run, scorer, w, recovery, f"finalist {i + 1} of {n}") for i, w in enumerate(result.finalists)]
    best = min(range(n), key=lambda i: found[i][0])
    tried = {recovery: found[best]}
    if recovery in WEAKER:
        weaker = WEAKER[recovery]
        tried[weaker] = _recovered(run, scorer, result.finalists[best], weaker, "the best finalist")
    return result.finalists[best], tried


def _recovered(run: Run, scorer: PolicyScorer, widths: Widths, recovery: Recovery, what: str) -> tuple[float, Weights]:
    with run.progress.task(f"Recovering {what} ({recovery})") as update:
        scored, weights = scorer.score(widths, recovery, update)
    assert scored.distortion is not None
    return scored.distortion, weights


def _slim(run: Run, widths: Widths, weights: Weights, recovery: Recovery) -> Slim:
    assert run.calibration is not None
    mask = run.calibration.mask(widths)
    blind = [run.index.groups[i] for i in run.calibration.sensitivity.blind]
    undecided = tuple(group.name for group in blind if not mask[group.span].all())
    return Slim(mask, cut(run.index, mask, weights), weights, recovery, undecided)


def _scored(run: Run, slim: Slim) -> Slim:
    score, outputs = unseen(run, slim.proto, "Scoring the slim model on unseen images")
    return replace(slim, before=score, after=score, outputs=outputs)


def unseen(run: Run, slim: ModelProto, text: str) -> tuple[float, tuple[dict[str, Any], ...]]:
    """Returns the score of a slim model on the images that nothing else has seen, and how near each output is."""
    assert run.images is not None
    images, task = run.images, run.images.task
    with run.progress.task(text) as update:
        outputs = predict_heads(run.graph, slim, images.final, task.heads, progress=update)
    near = fidelity(task.heads, outputs, images.final_reference)
    own = task.figures(outputs, images.final_reference)
    rows = tuple(row | {"figures": figures} for row, figures in zip(near, own, strict=True))
    return task.score(outputs, images.final_truth).value, rows
