"""Boxes as distances from a point to their four sides, each distance perhaps the mean of a distribution over bins.

References:
    Li et al.: Generalized focal loss, 2020, section 3.2.
"""

from __future__ import annotations

import numpy as np

from bocr_onnx.graph import Array
from bocr_onnx.runtime.functions import softmax
from bocr_onnx.tasks.detection.boxes import Floats


def distances(values: Array, points: Floats, stride: Array | float) -> Floats:
    """Returns corners of boxes, `(N, A, 4)`.

    Args:
        values: Distances to left, top, right and bottom in strides, `(N, A, 4)`; or logits of bins, `(N, A, 4 n)`.
        points: `(A, 2)` in pixels.
        stride: Pixels per unit of a distance, a number or `(A, 1)`.
    """
    n = values.shape[-1] // 4
    if n > 1:
        bins = softmax(values.reshape(*values.shape[:-1], 4, n), axis=-1)
        values = bins @ np.arange(n, dtype=np.float32)
    sides = values * stride
    return np.concatenate([points - sides[..., :2], points + sides[..., 2:]], axis=-1).astype(np.float32, copy=False)
