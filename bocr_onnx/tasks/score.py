"""Score of a model on images: top-1 accuracy with labels, agreement with the original without."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Score:
    """A share of images, larger is better.

    Attributes:
        value: In [0, 1].
        n_samples: Images it was measured on.
    """

    value: float
    n_samples: int

    @property
    def stderr(self) -> float:
        """Returns the standard error of the share."""
        return math.sqrt(max(self.value * (1 - self.value), 1e-12) / max(self.n_samples, 1))


def classes_of(outputs: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Returns the winning class of every image (and position), ties to the lower class.

    Args:
        outputs: Shape `(n_images, n_classes, ...)`; further axes of one entry are dropped.
    """
    return np.asarray(np.argmax(outputs.reshape(outputs.shape[0], outputs.shape[1], -1), axis=1).squeeze(-1))


def score_outputs(outputs: npt.NDArray[np.float32], truth: npt.NDArray[np.int64]) -> Score:
    """Returns the share of images whose winning class is the true one."""
    return Score(float(np.mean(classes_of(outputs) == truth)), len(truth))


def distortion(outputs: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]) -> float:
    """Returns how far outputs are from a reference: mean squared difference over the reference's variance.

    Zero is equal; one is as far as the mean of the reference would be. Finer than a share of images, and it needs
    no labels.
    """
    wide = reference.astype(np.float64)
    spread = float(np.mean((wide - wide.mean(axis=0)) ** 2))
    return float(np.mean((outputs.astype(np.float64) - wide) ** 2)) / max(spread, 1e-30)
