"""Scoring a policy: recover, cut once, and run the slim model on held-back images."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bocr_onnx.graph import InputRows
from bocr_onnx.options import Recovery
from bocr_onnx.recovery.calibration import Calibration, Weights
from bocr_onnx.runtime import Outputs, open_heads, predict_heads, session_threads
from bocr_onnx.slimming import cut
from bocr_onnx.tasks import Score, Task, total_distortion

FIRST_SHARE, MIN_FIRST = 0.2, 100
"""The first slice of images: this share, and at least so many."""


@dataclass(frozen=True, slots=True)
class ScoredModel:
    """What scoring a policy gave.

    Attributes:
        score: Share of images that are right, or that agree with the original; of the first slice where stopped.
        distortion: Distortion of the output, against the original's; None where the trial was stopped.
        first: Distortion on the first slice of images.
        seconds: Wall time of recovery and evaluation.
    """

    score: Score
    distortion: float | None
    first: float
    seconds: float


@dataclass(frozen=True, slots=True)
class PolicyScorer:
    """Scores policies by a slim model on held-back images.

    Attributes:
        calibration: The model.
        images: Preprocessed score images.
        task: What a score means.
        truth: What outputs are scored against: labels, or what the original says.
        reference: The original's outputs on the images.
        threads: Number of ONNX Runtime threads; 0 means one per core.
    """

    calibration: Calibration
    images: InputRows
    task: Task
    truth: Outputs
    reference: Outputs
    threads: int = 0

    @property
    def n_first(self) -> int:
        """Returns how many images the first slice has."""
        return min(len(self.images), max(MIN_FIRST, round(FIRST_SHARE * len(self.images))))

    def score(
        self,
        widths: npt.NDArray[np.int64],
        recovery: Recovery,
        progress: Callable[[int, int], None] | None = None,
        *,
        ceiling: float | None = None,
    ) -> tuple[ScoredModel, Weights]:
        """Returns the score of a policy and the weights it was scored with.

        Args:
            widths: Kept channels per group.
            recovery: How the slim model is recovered first.
            progress: Told while a sequential recovery runs.
            ceiling: Scoring stops after the first slice of images where the distortion there is above it.
        """
        with session_threads(self.threads):
            return self._score(widths, recovery, progress, ceiling)

    def _score(
        self,
        widths: npt.NDArray[np.int64],
        recovery: Recovery,
        progress: Callable[[int, int], None] | None,
        ceiling: float | None,
    ) -> tuple[ScoredModel, Weights]:
        start = time.perf_counter()
        graph, index, n = self.calibration.graph, self.calibration.index, self.n_first
        mask = self.calibration.mask(widths)
        weights = self.calibration.recover(mask, recovery, progress)
        heads = self.task.heads
        session = open_heads(cut(index, mask, weights), heads)
        outputs = predict_heads(graph, session, self.images, heads, rows=range(n))
        first, whole = total_distortion(outputs, _first(self.reference, n), heads), None
        if n == len(self.images) or ceiling is None or first <= ceiling:
            rest = range(n, len(self.images))
            if rest:
                further = predict_heads(graph, session, self.images, heads, rows=rest)
                outputs = tuple(np.concatenate(pair) for pair in zip(outputs, further, strict=True))
            whole = total_distortion(outputs, self.reference, heads)
        score = self.task.score(outputs, _first(self.truth, len(outputs[0])))
        return ScoredModel(score, whole, first, time.perf_counter() - start), weights


def _first(outputs: Outputs, n: int) -> Outputs:
    return tuple(array[:n] for array in outputs)
