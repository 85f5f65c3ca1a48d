"""Classifiers: one vector of classes per image, or one number that stands for yes or no."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bocr_onnx.errors import DataError
from bocr_onnx.graph import Array
from bocr_onnx.runtime import Head, Outputs
from bocr_onnx.tasks.score import Score, classes_of


@dataclass(frozen=True, slots=True)
class Classification:
    """A classifier; top-1 with labels, agreement with the original without.

    Attributes:
        heads: Vectors of classes; labels are those of the first one.
        threshold: A model of one number says yes above it; None where there is a vector of classes.
        name: ``classification``.
    """

    heads: tuple[Head, ...]
    threshold: float | None = None
    name: str = "classification"

    def metric(self, *, labelled: bool) -> str:
        """Returns what a score means."""
        return "top-1" if labelled else "agreement with the original"

    def check(self, outputs: Outputs, labels: Array | None, source: str) -> None:
        """Checks that labels are classes of the model.

        Raises:
            DataError: They are not whole numbers, one per image, or one is out of range.
        """
        for head, output in zip(self.heads, outputs, strict=True):
            if output.ndim < 2 or output[0].size != output.shape[1] or (self.threshold is None and output.shape[1] < 2):
                raise DataError(
                    f"output {head.name!r} must hold one vector of classes per image to be scored as a classifier, "
                    f"got shape {output.shape}",
                    hint="`task=generic` compares any outputs with the original's.",
                )
        if labels is None:
            return
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise DataError(
                f"`data={source}`: labels must be one class per image, got shape {labels.shape} {labels.dtype}",
                hint="`task=regression` takes numbers, `task=segmentation` takes masks.",
            )
        n_classes = 2 if self.threshold is not None else outputs[0].shape[1]
        if int(labels.max()) >= n_classes:
            raise DataError(
                f"`data={source}`: labels must be below the model's {n_classes} classes, got {int(labels.max())}"
            )

    def truth(self, outputs: Outputs, labels: Array | None) -> Outputs:
        """Returns the classes: labels, or those that the original's outputs say, one array per head."""
        return (labels,) if labels is not None else tuple(self._classes(output) for output in outputs)

    def learns(self, labels: Array | None) -> Array | None:
        """Returns the labels: classes."""
        return labels

    def figures(self, outputs: Outputs, reference: Outputs) -> tuple[dict[str, float], ...]:
        """Returns the share of images whose class is the original's."""
        pairs = zip(outputs, reference, strict=True)
        return tuple({"agreement": float(np.mean(self._classes(o) == self._classes(r)))} for o, r in pairs)

    def score(self, outputs: Outputs, truth: Outputs) -> Score:
        """Returns the share of images whose class is the true one, the mean over heads."""
        shares = [float(np.mean(self._classes(o) == t)) for o, t in zip(outputs, truth, strict=False)]
        return Score(shares[0] if len(shares) == 1 else float(np.mean(shares)), len(truth[0]))

    def _classes(self, output: Array) -> npt.NDArray[np.int64]:
        if self.threshold is None:
            return classes_of(output)
        return (output.reshape(len(output)) > self.threshold).astype(np.int64)


def chance(task: Classification, outputs: Outputs) -> float:
    """Returns the share of images that guessing gets right."""
    return 1 / (2 if task.threshold is not None else outputs[0].shape[1])
