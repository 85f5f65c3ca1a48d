"""What all budgets of a run share: images, calibration, and the scorer of policies."""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from bocr_onnx.api.images import ModelData, check_chance, check_labels, fit_images, load_images
from bocr_onnx.api.run import Run
from bocr_onnx.api.rundir import open_images
from bocr_onnx.data import InputRows, Split, in_pieces, split
from bocr_onnx.evaluation import Calibration, PolicyScorer, calibrate, classes_of, predict, score_outputs, weigh_curves
from bocr_onnx.graph import Array

SCORING = 2
"""Changes whenever the same policy on the same images would get another objective."""


RECOVERY_SHARE, IMAGES_SHARE = 0.6, 0.08
"""Shares of `--memory`: the activations of the sequential recovery; each of the three parts of the images, two of which
are copied when they are joined."""


@dataclass(frozen=True, slots=True)
class Images:
    """Data, split and loaded.

    Attributes:
        data: Where they come from.
        split: Which of them serve for what.
        score: For the search.
        recovery: For the recovery.
        final: Seen by nothing but the figures of the report.
        final_truth: Their classes.
        baseline: Score of the original on them.
    """

    data: ModelData
    split: Split
    score: InputRows
    recovery: InputRows
    final: InputRows
    final_truth: Array
    baseline: float

    def record(self) -> dict[str, Any]:
        """Returns what the report says of them."""
        return self.split.describe() | {
            "preprocessing": asdict(self.data.preprocessing),
            "preprocessing_guessed": self.data.guessed,
        }


@dataclass(frozen=True, slots=True)
class Ground:
    """What was measured before the search.

    Attributes:
        images: All of them.
        calibration: Calibration of the original.
        scorer: Scorer of policies.
        digest: Digest of everything that decides how a policy scores, except the model and its recovery.
    """

    images: Images
    calibration: Calibration
    scorer: PolicyScorer
    digest: str


def measure(run: Run, images: Images) -> Ground:
    """Returns what the search stands on; the run's time record is filled."""
    start = time.perf_counter()
    with run.progress.task("Measuring the original on recovery images") as update:
        calibration = calibrate(run.graph, run.index, images.recovery, seed=run.options.seed, progress=update)
        calibration = replace(calibration, memory_bytes=int(RECOVERY_SHARE * run.options.memory_bytes))
    with run.progress.task("Scanning sensitivity of groups") as update:
        calibration = weigh_curves(calibration, progress=update)
    run.seconds["calibration"] = time.perf_counter() - start
    return Ground(images, calibration, _scorer(run, calibration, images), _digest(images))


def _digest(images: Images) -> str:
    digest = hashlib.sha256(f"scoring {SCORING}".encode())
    for part in (images.score, images.recovery):
        for piece in in_pieces(part):
            digest.update(np.ascontiguousarray(piece).data)
    return digest.hexdigest()


def load_all(run: Run) -> Images:
    """Returns the images of a run, loaded and checked against its model."""
    options = run.options
    start = time.perf_counter()
    pools = open_images(options)
    parts = split(pools, seed=options.seed, **options.n_images)
    data = fit_images(run.graph, pools, parts.score, options.preprocessing)
    if data.guessed:
        run.progress.note(f"preprocessing: {data.preprocessing.name} (the best fit; name it with `preset`)")
    with run.progress.task("Loading images") as update:
        loaded = []
        for i, samples in enumerate((parts.score, parts.recovery, parts.final)):
            loaded.append(load_images(run.graph, data, samples, int(IMAGES_SHARE * options.memory_bytes)))
            update(i + 1, 3)
    score, recovery, final = loaded
    with run.progress.task("Scoring the original on unseen images") as update:
        outputs = predict(run.graph, run.graph.proto, final, progress=update)
    check_labels(run.graph, outputs, parts.final, data.pools.path)
    truth = classes_of(outputs) if parts.final.labels is None else parts.final.labels
    baseline = score_outputs(outputs, truth).value
    check_chance(data, baseline, len(final), outputs.shape[1])
    run.seconds["data"] = time.perf_counter() - start
    return Images(data, parts, score, recovery, final, truth, baseline)


def _scorer(run: Run, calibration: Calibration, images: Images) -> PolicyScorer:
    with run.progress.task("Scoring the original on search images") as update:
        reference = predict(run.graph, run.graph.proto, images.score, progress=update)
    check_labels(run.graph, reference, images.split.score, images.data.pools.path)
    labels = images.split.score.labels
    return PolicyScorer(calibration, images.score, classes_of(reference) if labels is None else labels, reference)
