"""The choice at the end: which finalist, and with which recovery."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bocr_onnx.api.run import Run
from bocr_onnx.data import joined
from bocr_onnx.evaluation import PolicyScorer, Weights, session_threads
from bocr_onnx.options import Recovery
from bocr_onnx.search import SearchResult

WEAKER: dict[Recovery, tuple[Recovery, ...]] = {
    "none": ("none",),
    "oneshot": ("oneshot",),
    "sequential": ("sequential", "oneshot"),
}
"""What is tried for the emitted model: fitted layer by layer on few images, a model without residual streams may end
further from the original than in one shot."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The policy that is emitted.

    Attributes:
        widths: Kept channels of every group, shape `(n_groups,)`.
        weights: What recovery has set.
        recovery: Which one it was.
        distortion: Distortion of the output, on the search images, when it was chosen.
    """

    widths: npt.NDArray[np.int64]
    weights: Weights
    recovery: Recovery
    distortion: float


def choose(run: Run, scorer: PolicyScorer, result: SearchResult) -> Choice:
    """Returns the finalist that is nearest to the original after its best recovery, on the search images.

    When that is the sequential one, the finalist is fitted once more, on the search images too: now that nothing is
    chosen by them, they may teach.
    """
    best = _nearest(run, scorer, result)
    if best.recovery != "sequential":
        return best
    calibration = scorer.calibration
    assert calibration.images is not None
    taught = replace(calibration, images=joined(calibration.images, scorer.images))
    with run.progress.task("Recovering the result on all images") as update, session_threads(scorer.threads):
        return replace(best, weights=taught.recover(calibration.mask(best.widths), "sequential", update))


def _nearest(run: Run, scorer: PolicyScorer, result: SearchResult) -> Choice:
    recoveries = WEAKER[run.options.recover]
    found = []
    for i, widths in enumerate(result.finalists):
        for recovery in recoveries:
            with run.progress.task(f"Recovering finalist {i + 1} of {len(result.finalists)} ({recovery})") as update:
                scored, weights = scorer.score(widths, recovery, update)
            assert scored.distortion is not None
            found.append(Choice(widths, weights, recovery, scored.distortion))
    return min(found, key=lambda choice: choice.distortion)
