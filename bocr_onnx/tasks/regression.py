"""Regressors: numbers with a unit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bocr_onnx.errors import DataError
from bocr_onnx.graph import Array
from bocr_onnx.runtime import Head, Outputs
from bocr_onnx.tasks.score import Score, distortion


@dataclass(frozen=True, slots=True)
class Regression:
    """A model of numbers; R2 against labels, or against the original's.

    Attributes:
        heads: One tensor.
        name: ``regression``.
    """

    heads: tuple[Head, ...]
    name: str = "regression"

    def metric(self, *, labelled: bool) -> str:
        """Returns what a score means."""
        return "R2" if labelled else "R2 with the original"

    def check(self, outputs: Outputs, labels: Array | None, source: str) -> None:
        """Checks that there are as many labels as numbers.

        Raises:
            DataError: There are not.
        """
        if labels is not None and labels[:1].size != outputs[0][:1].size:
            raise DataError(
                f"`data={source}`: labels must be as many numbers per image as output {self.heads[0].name!r} holds, "
                f"got {labels[:1].size} for {outputs[0][:1].size}"
            )

    def truth(self, outputs: Outputs, labels: Array | None) -> Outputs:
        """Returns the labels, or the original's numbers."""
        return (outputs[0] if labels is None else labels.reshape(outputs[0].shape).astype(np.float32),)

    def learns(self, labels: Array | None) -> Array | None:
        """Returns the labels: numbers."""
        return labels

    def figures(self, outputs: Outputs, reference: Outputs) -> tuple[dict[str, float], ...]:
        """Returns the mean difference from the original's numbers, in their unit."""
        return ({"mean error": float(np.abs(outputs[0].astype(np.float64) - reference[0]).mean())},)

    def score(self, outputs: Outputs, truth: Outputs) -> Score:
        """Returns R2, the share of the variance that is explained; below zero counts as zero."""
        return Score(min(max(1 - distortion(outputs[0], truth[0]), 0.0), 1.0), len(truth[0]))
