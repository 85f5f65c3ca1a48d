"""Recovery block by block: the best finalist is reconstructed, where that brings it nearer to the original."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bocr_onnx.cost import Widths
from bocr_onnx.data import part
from bocr_onnx.errors import TrainingError
from bocr_onnx.graph import ModelGraph, from_proto
from bocr_onnx.options import Recovery
from bocr_onnx.pipeline.run import Run
from bocr_onnx.recovery import PolicyScorer, Weights, peak_bytes
from bocr_onnx.runtime import predict_heads
from bocr_onnx.slimming import changed_operands, cut, kept_positions
from bocr_onnx.tasks import total_distortion

STREAMS = 2
"""Tensors of all images that are held at once, in those that are alive at the widest point of the graph."""

GOOD_START = 0.3
"""Distortion of the one-shot recovery up to which a reconstruction starts from it: it overfits less."""


def images_within(graph: ModelGraph, n: int, memory_bytes: int) -> int:
    """Returns how many of `n` images a reconstruction may hold: what segments read and make, of both models."""
    return min(n, memory_bytes // max(1, STREAMS * peak_bytes(graph)))


def rebuild(
    run: Run, scorer: PolicyScorer, tried: Sequence[tuple[float, Widths, Weights, Recovery]]
) -> tuple[Widths, Weights, Recovery]:
    """Returns the nearest finalist, reconstructed where that is nearer still on the search images.

    A model that cannot be trained, or with too few images, stays as the recoveries before have left it; a note says so.

    Args:
        run: The run.
        scorer: Has the images that decide.
        tried: Finalists with the recoveries that were tried before.
    """
    distortion, widths, weights, recovery = min(tried, key=lambda choice: choice[0])
    starts = {r: (d, w) for d, own, w, r in tried if np.array_equal(own, widths)}
    start = starts["oneshot"] if starts["oneshot"][0] <= GOOD_START else starts["sequential"]
    calibration, graph = scorer.calibration, run.graph
    mask = calibration.mask(widths)
    slim = replace(from_proto(cut(run.index, mask, start[1]), input_shapes=graph.input_shapes), symbolic=graph.symbolic)
    kept = {
        name: {axis: kept_positions(channels, mask) for axis, channels in axes.items()}
        for name, axes in run.index.axes.items()
    }
    assert calibration.images is not None
    images = part(calibration.images, 0, images_within(graph, len(calibration.images), calibration.memory_bytes))
    from bocr_onnx.training import reconstruct

    with run.progress.task("Reconstructing block by block") as update:
        try:
            proto, segments = reconstruct(graph, slim, kept, images, seed=run.options.seed, progress=update)
        except TrainingError as error:
            run.progress.note(f"not reconstructed block by block: {error.message}")
            return widths, weights, recovery
    made = changed_operands(run.index, mask, from_proto(proto, input_shapes=graph.input_shapes))
    outputs = predict_heads(graph, proto, scorer.images, scorer.task.heads)
    after = total_distortion(outputs, scorer.reference, scorer.task.heads)
    run.progress.note(
        f"{sum(one.kept for one in segments)} of {len(segments)} blocks reconstructed: distortion {after:.4f}, "
        f"{distortion:.4f} before"
    )
    return (widths, made, "blockwise") if after < distortion else (widths, weights, recovery)
