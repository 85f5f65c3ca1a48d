"""Recovery block by block: the best finalist is reconstructed, where that brings it nearer to the original."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from onnx import ModelProto

from bocr_onnx.cost import Widths
from bocr_onnx.data import joined, part
from bocr_onnx.errors import TrainingError
from bocr_onnx.graph import InputRows, ModelGraph, from_proto
from bocr_onnx.options import Recovery
from bocr_onnx.pipeline.run import Run
from bocr_onnx.recovery import PolicyScorer, Weights, peak_bytes
from bocr_onnx.runtime import predict_heads
from bocr_onnx.slimming import Mask, changed_operands, cut, kept_positions
from bocr_onnx.tasks import total_distortion

STREAMS = 2
"""Tensors of all images that are held at once, in those that are alive at the widest point of the graph."""

GOOD_START = 0.3
"""Distortion of the one-shot recovery up to which a reconstruction starts from it: it overfits less."""

HELD_BACK, LEAST_HELD, MOST_HELD = 0.1, 40, 0.2
"""Share of the images that neither teaches the start nor the blocks, and decides between the two; at least so many,
where that is at most the larger share."""

LEAST_TAUGHT = 400
"""Images from which a block learns more than it overfits: on MobileNet, 200 of them cost five points of agreement."""

N_STEPS = 300
"""Steps that each block is trained for."""

Starts = Mapping[Recovery, tuple[float, Weights]]
"""Distortion on the search images, and weights, after each recovery that was tried."""


def images_within(graph: ModelGraph, n: int, memory_bytes: int) -> int:
    """Returns how many of `n` images a reconstruction may hold: what segments read and make, of both models."""
    return min(n, memory_bytes // max(1, STREAMS * peak_bytes(graph)))


def rebuild(run: Run, scorer: PolicyScorer, widths: Widths, starts: Starts) -> Weights | None:
    """Returns the weights of a policy that is reconstructed, or None where that is not nearer to the original.

    It learns from the recovery images and from the search images, by which nothing more is chosen; a tenth of them
    decides. A fit of least error favours timid outputs, so the same weights with the original's statistics restored are
    tried too, and win where they agree more often. A model that cannot be trained, or with too few images, is not
    reconstructed; a note says so.

    Args:
        run: The run.
        scorer: Has the images and the calibration.
        widths: Kept channels of every group.
        starts: What the recoveries before have given.
    """
    from bocr_onnx.training import check_reconstructs, reconstruct

    calibration, graph, mask = scorer.calibration, run.graph, scorer.calibration.mask(widths)
    assert calibration.images is not None
    images = joined(calibration.images, scorer.images)
    n = images_within(graph, len(images), calibration.memory_bytes)
    n_taught = n - round(max(HELD_BACK * n, min(LEAST_HELD, MOST_HELD * n)))
    taught, held = part(images, 0, n_taught), part(images, n_taught, n)
    if n_taught < LEAST_TAUGHT:
        run.progress.note(f"not reconstructed block by block: {n_taught} images are few, {LEAST_TAUGHT} would do")
        return None
    try:
        check_reconstructs(graph, n_taught)
    except TrainingError as error:
        run.progress.note(f"not reconstructed block by block: {error.message}")
        return None
    distortion, weights = starts["oneshot"]
    if distortion > GOOD_START:
        with run.progress.task("Recovering the result on all images") as update:
            weights = replace(calibration, images=taught).recover(mask, "sequential", update)
    before = cut(run.index, mask, weights)
    slim = replace(from_proto(before, input_shapes=graph.input_shapes), symbolic=graph.symbolic)
    limit, start = run.options.recover_seconds or math.inf, time.monotonic()
    with run.progress.task("Reconstructing block by block") as update:
        try:
            proto, segments = reconstruct(
                graph, slim, _kept(run, mask), taught, seed=run.options.seed, n_steps=N_STEPS, progress=update,
                until=lambda: time.monotonic() - start > limit,
            )  # fmt: skip
        except TrainingError as error:
            run.progress.note(f"not reconstructed block by block: {error.message}")
            return None
    first, after = (-_judged(scorer, model, held)[1] for model in (before, proto))
    ending = "; the time was up" * (time.monotonic() - start > limit) + "; not used" * (after >= first)
    run.progress.note(
        f"{sum(one.kept for one in segments)} of {len(segments)} blocks reconstructed: distortion {after:.4f}, "
        f"{first:.4f} before{ending}"
    )
    if after >= first:
        return None
    made = changed_operands(run.index, mask, from_proto(proto, input_shapes=graph.input_shapes))
    rescaled = calibration.rescale(mask, made)
    return max(made, rescaled, key=lambda own: _judged(scorer, cut(run.index, mask, own), held))


def _kept(run: Run, mask: Mask) -> dict[str, dict[int, np.ndarray[tuple[int], np.dtype[np.int64]]]]:
    """Returns the positions that a policy keeps of every tensor, by axis."""
    axes = run.index.axes
    return {name: {axis: kept_positions(channels, mask) for axis, channels in a.items()} for name, a in axes.items()}


def _judged(scorer: PolicyScorer, model: ModelProto, images: InputRows) -> tuple[float, float]:
    """Returns how often a model agrees with the original on images, and minus the distortion of its outputs."""
    graph, task = scorer.calibration.graph, scorer.task
    reference, outputs = (predict_heads(graph, proto, images, task.heads) for proto in (graph.proto, model))
    agreement = task.score(outputs, task.truth(reference, None)).value
    return agreement, -total_distortion(outputs, reference, task.heads)
