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
from bocr_onnx.slimming import Mask, changed_operands, cut, kept_positions
from bocr_onnx.tasks import total_distortion

STREAMS = 2
"""Tensors of all images that are held at once, in those that are alive at the widest point of the graph."""

GOOD_START = 0.3
"""Distortion of the one-shot recovery up to which a reconstruction starts from it: it overfits less."""

HELD_BACK = 0.1
"""Share of the images that neither teaches the start nor the blocks, and decides between the two."""

Starts = Mapping[Recovery, tuple[float, Weights]]
"""Distortion on the search images, and weights, after each recovery that was tried."""


def images_within(graph: ModelGraph, n: int, memory_bytes: int) -> int:
    """Returns how many of `n` images a reconstruction may hold: what segments read and make, of both models."""
    return min(n, memory_bytes // max(1, STREAMS * peak_bytes(graph)))


def rebuild(run: Run, scorer: PolicyScorer, widths: Widths, starts: Starts) -> Weights | None:
    """Returns the weights of a policy that is reconstructed, or None where that is not nearer to the original.

    It learns from the recovery images and from the search images, by which nothing more is chosen; a tenth of them
    decides. A model that cannot be trained, or with too few images, is not reconstructed; a note says so.

    Args:
        run: The run.
        scorer: Has the images and the calibration.
        widths: Kept channels of every group.
        starts: What the recoveries before have given.
    """
    from bocr_onnx.training import reconstruct

    calibration, graph, mask = scorer.calibration, run.graph, scorer.calibration.mask(widths)
    assert calibration.images is not None
    images = joined(calibration.images, scorer.images)
    n = images_within(graph, len(images), calibration.memory_bytes)
    n_taught = n - round(HELD_BACK * n)
    taught, held = part(images, 0, n_taught), part(images, n_taught, n)
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
                graph, slim, _kept(run, mask), taught, seed=run.options.seed, progress=update,
                until=lambda: time.monotonic() - start > limit,
            )  # fmt: skip
        except TrainingError as error:
            run.progress.note(f"not reconstructed block by block: {error.message}")
            return None
    first, after = (_distortion(scorer, model, held) for model in (before, proto))
    ending = "; the time was up" * (time.monotonic() - start > limit) + "; not used" * (after >= first)
    run.progress.note(
        f"{sum(one.kept for one in segments)} of {len(segments)} blocks reconstructed: distortion {after:.4f}, "
        f"{first:.4f} before{ending}"
    )
    made = from_proto(proto, input_shapes=graph.input_shapes)
    return changed_operands(run.index, mask, made) if after < first else None


def _kept(run: Run, mask: Mask) -> dict[str, dict[int, np.ndarray[tuple[int], np.dtype[np.int64]]]]:
    """Returns the positions that a policy keeps of every tensor, by axis."""
    axes = run.index.axes
    return {name: {axis: kept_positions(channels, mask) for axis, channels in a.items()} for name, a in axes.items()}


def _distortion(scorer: PolicyScorer, model: ModelProto, images: InputRows) -> float:
    calibration = scorer.calibration
    reference = calibration.predict(calibration.graph.proto, images)
    return total_distortion(calibration.predict(model, images), reference, scorer.task.heads)
