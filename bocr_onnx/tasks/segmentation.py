"""Segmenters: a class for every position."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bocr_onnx.errors import DataError
from bocr_onnx.graph import Array
from bocr_onnx.runtime import Head, Outputs
from bocr_onnx.tasks.score import Score

UNLABELLED = 255
"""What a mask says where nobody drew a class; such positions do not count."""


@dataclass(frozen=True, slots=True)
class Segmentation:
    """A model that names a class at every position; mean intersection over union with masks, or with the original's.

    Attributes:
        heads: One tensor, with the axis of its classes.
        threshold: A model of one class says yes above it; None where there are several.
        name: ``segmentation``.
    """

    heads: tuple[Head, ...]
    threshold: float | None = None
    name: str = "segmentation"

    def metric(self, *, labelled: bool) -> str:
        """Returns what a score means."""
        return "mIoU" if labelled else "mIoU with the original"

    def check(self, outputs: Outputs, labels: Array | None, source: str) -> None:
        """Checks that masks are as large as the output.

        Raises:
            DataError: They are not, or they are not whole numbers.
        """
        if labels is None:
            return
        if labels.ndim < 2 or labels.dtype.kind not in "iu":
            raise DataError(
                f"`data={source}`: labels of a segmenter must be masks of whole numbers, "
                f"got shape {labels.shape} {labels.dtype}"
            )
        scores = self._scores(outputs[0])
        n_classes = scores.shape[1] if self.threshold is None else 2
        if (bad := np.setdiff1d(labels, [*range(n_classes), UNLABELLED])).size:
            raise DataError(
                f"`data={source}`: masks must hold classes below the model's {n_classes}, "
                f"or {UNLABELLED} for no class, got {bad[0]}"
            )
        n = int(np.prod(scores.shape[2:]))
        if n != len(self.heads[0].sample(labels[:1])[0].ravel()):
            raise DataError(
                f"`data={source}`: masks must be as large as output {self.heads[0].name!r}, got {labels.shape[1:]}"
            )

    def truth(self, outputs: Outputs, labels: Array | None) -> Outputs:
        """Returns the class of every position that is looked at, shape `(n_images, n_positions)`."""
        if labels is None:
            return (self.classes(outputs[0]),)
        return (self.heads[0].sample(labels).reshape(len(labels), -1),)

    def learns(self, labels: Array | None) -> Array | None:
        """Returns the labels: masks."""
        return labels

    def figures(self, outputs: Outputs, reference: Outputs) -> tuple[dict[str, float], ...]:
        """Returns the share of positions whose class is the original's."""
        return ({"pixel agreement": float(np.mean(self.classes(outputs[0]) == self.classes(reference[0])))},)

    def score(self, outputs: Outputs, truth: Outputs) -> Score:
        """Returns the mean intersection over union of the classes that the truth holds."""
        found = self.classes(outputs[0])
        ratios = []
        known = truth[0] != UNLABELLED
        for number in np.unique(truth[0][known]):
            a, b = (found == number) & known, truth[0] == number
            ratios.append(float((a & b).sum()) / max(float((a | b).sum()), 1.0))
        return Score(float(np.mean(ratios)), len(found))

    def _scores(self, output: Array) -> Array:
        return output if output.ndim > 2 else output[..., None]

    def classes(self, output: Array) -> npt.NDArray[np.int64]:
        """Returns the class of every position, shape `(n_images, n_positions)`, for scores with classes second."""
        flat = output.reshape(*output.shape[:2], -1)
        return np.asarray(np.argmax(flat, axis=1) if self.threshold is None else flat[:, 0] > self.threshold, np.int64)
