"""The first stages, which all budgets of a model share: images, calibration, and the scorer of policies."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from bocr_onnx.data import in_pieces
from bocr_onnx.pipeline.loaded import Images, load_parts
from bocr_onnx.pipeline.run import Run
from bocr_onnx.recovery import Calibration, PolicyScorer, calibrate, weigh_curves
from bocr_onnx.runtime import predict_heads
from bocr_onnx.tasks import compared

SCORING = 2
"""Changes whenever the same policy on the same images would get another objective."""


RECOVERY_SHARE = 0.6
"""Share of `--memory` for the activations of the sequential recovery."""


def measure(run: Run) -> Run:
    """Returns the run with the measurements of its original, and with the scorer of policies where there are images."""
    images = run.images
    if images is None:
        return replace(run, calibration=calibrate(run.index, None, seed=run.options.seed))
    with run.progress.task("Measuring the original on recovery images") as update:
        calibration = calibrate(run.index, images.recovery, seed=run.options.seed, progress=update)
        memory = int(RECOVERY_SHARE * run.options.memory_bytes)
        calibration = replace(calibration, memory_bytes=memory, heads=compared(images.task.heads))
    with run.progress.task("Scanning sensitivity of groups") as update:
        calibration = weigh_curves(calibration, images.score, progress=update)
    return replace(run, calibration=calibration, scorer=_scorer(run, calibration, images))


def digest_of(images: Images) -> str:
    """Returns the digest of everything that decides how a policy scores, except the model and its recovery."""
    digest = hashlib.sha256(f"scoring {SCORING}".encode())
    for part in (images.score, images.recovery):
        for piece in in_pieces(part):
            digest.update(np.ascontiguousarray(piece).tobytes())
    return digest.hexdigest()


def load(run: Run) -> Run:
    """Returns the run with its images; as it is without data."""
    return run if run.pools is None else replace(run, images=load_parts(run.graph, run.pools, run.options))


def _scorer(run: Run, calibration: Calibration, images: Images) -> PolicyScorer:
    task, labels = images.task, images.split.score.labels
    with run.progress.task("Scoring the original on search images") as update:
        reference = predict_heads(run.graph, run.graph.proto, images.score, task.heads, progress=update)
    task.check(reference, labels, images.data.pools.path)
    return PolicyScorer(calibration, images.score, task, task.truth(reference, labels), reference)
