"""The choice at the end: which finalist, and with which recovery."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bocr_onnx.api.run import Run
from bocr_onnx.evaluation import PolicyScorer, Recovery, Weights
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
        distortion: Of the output, on the search images.
    """

    widths: npt.NDArray[np.int64]
    weights: Weights
    recovery: Recovery
    distortion: float


def choose(run: Run, scorer: PolicyScorer, result: SearchResult) -> Choice:
    """Returns the finalist that is nearest to the original behind its best recovery, on the search images."""
    recoveries = WEAKER[run.options.recover]
    finalists = result.finalists if len(recoveries) > 1 else result.finalists[:1]
    found = []
    for i, widths in enumerate(finalists):
        for recovery in recoveries:
            with run.progress.task(f"Recovering finalist {i + 1} of {len(finalists)} ({recovery})") as update:
                scored, weights = scorer.score(widths, recovery, update)
            assert scored.distortion is not None
            found.append(Choice(widths, weights, recovery, scored.distortion))
    return min(found, key=lambda choice: choice.distortion)
