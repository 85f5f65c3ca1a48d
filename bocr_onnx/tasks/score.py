"""Scores in [0, 1], and how far outputs are from a reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bocr_onnx.graph import Array
from bocr_onnx.runtime import WEIGHED, Head, Outputs

LEAST = 1e-6
"""What a place counts at least, so that something is left where a detector sees nothing."""


@dataclass(frozen=True, slots=True)
class Score:
    """A score, larger is better.

    Attributes:
        value: In [0, 1].
        n_samples: Images it was measured on.
    """

    value: float
    n_samples: int

    @property
    def stderr(self) -> float:
        """Returns the standard error of a share of images."""
        return math.sqrt(max(self.value * (1 - self.value), 1e-12) / max(self.n_samples, 1))


def classes_of(outputs: Array) -> npt.NDArray[np.int64]:
    """Returns the winning class of every image (and position), ties to the lower class.

    Args:
        outputs: Shape `(n_images, n_classes, ...)`; further axes of one entry are dropped.
    """
    return np.asarray(np.argmax(outputs.reshape(outputs.shape[0], outputs.shape[1], -1), axis=1).squeeze(-1))


def score_outputs(outputs: Array, truth: npt.NDArray[np.int64]) -> Score:
    """Returns the share of images whose winning class is the true one."""
    return Score(float(np.mean(classes_of(outputs) == truth)), len(truth))


def distortion(outputs: Array, reference: Array) -> float:
    """Returns how far outputs are from a reference: mean squared difference over the reference's variance.

    Zero is equal; one is as far as the mean of the reference would be. Finer than a share of images, and it needs
    no labels. Of `WEIGHED` numbers each counts as much as the reference says.
    """
    (wide, sure), (found, _) = _values(reference), _values(outputs)
    return float(np.average((found - wide) ** 2, weights=sure)) / max(_spread(wide, sure), 1e-30)


def _values(array: Array) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64] | None]:
    """Returns numbers, and how much they count; None where all count alike."""
    if array.dtype != WEIGHED:
        return array.astype(np.float64), None
    return array["value"].astype(np.float64), np.maximum(array["sure"], LEAST).astype(np.float64)


def _spread(wide: npt.NDArray[np.float64], sure: npt.NDArray[np.float64] | None) -> float:
    return float(np.average((wide - np.average(wide, axis=0, weights=sure)) ** 2, weights=sure))


def varies(reference: Array) -> bool:
    """Returns whether a tensor differs between images at all; one that does not says nothing of a slim model."""
    wide, sure = _values(reference)
    return _spread(wide, sure) > 1e-12 * max(float(np.average(wide**2, weights=sure)), 1e-30)


def total_distortion(outputs: Outputs, reference: Outputs, heads: Sequence[Head] = ()) -> float:
    """Returns the mean distortion of the tensors that differ between images; that of all where none does.

    Args:
        outputs: The slim model's.
        reference: The original's.
        heads: Have the weight of each tensor; all count alike where there are none.
    """
    weights = [head.weight for head in heads] or [1.0] * len(outputs)
    rows = [(o, r, w) for o, r, w in zip(outputs, reference, weights, strict=True) if w > 0]
    rows = [row for row in rows if varies(row[1])] or rows
    found = [distortion(o, r) for o, r, _ in rows]
    return found[0] if len(found) == 1 else float(np.average(found, weights=[w for *_, w in rows]))


def compared(heads: Sequence[Head]) -> tuple[Head, ...]:
    """Returns the tensors whose distortion counts."""
    return tuple(head for head in heads if head.weight > 0)


def fidelity(heads: Sequence[Head], outputs: Outputs, reference: Outputs) -> tuple[dict[str, Any], ...]:
    """Returns how near each tensor is to its reference: distortion, correlation and largest error.

    Args:
        heads: Names of the tensors.
        outputs: The slim model's.
        reference: The original's.
    """
    return tuple(_nearness(h, o, r) for h, o, r in zip(heads, outputs, reference, strict=True))


def _nearness(head: Head, outputs: Array, reference: Array) -> dict[str, Any]:
    if outputs.dtype.names and outputs.dtype != WEIGHED:  # detections, no numbers
        return {"name": head.title, "distortion": None, "correlation": None, "largest_error": None}
    (a, _), (b, sure) = _values(outputs), _values(reference)
    shares = np.ones(b.size) if sure is None else sure.ravel()
    left, right = ((x - np.average(x, axis=0, weights=sure)).ravel() for x in (a, b))
    scale = math.sqrt(float(left @ (shares * left)) * float(right @ (shares * right)))
    return {
        "name": head.title,
        "distortion": distortion(outputs, reference) if varies(reference) else None,
        "correlation": float(left @ (shares * right)) / scale if scale > 0 else None,
        "largest_error": float(np.abs(a - b).max(initial=0.0)),
    }
