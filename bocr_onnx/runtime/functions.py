"""Functions of outputs that neither overflow nor need more than numpy: `check` and `bench` run without scipy."""

from __future__ import annotations

import numpy as np

from bocr_onnx.graph import Array


def expit(x: Array) -> Array:
    """Returns 1 / (1 + exp(-x)), of the type of `x`.

    Example:
        >>> expit(np.array([-1000.0, 0.0, 1000.0])).tolist()
        [0.0, 0.5, 1.0]
    """
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1, small) / (1 + small), dtype=x.dtype)


def softmax(x: Array, axis: int = -1) -> Array:
    """Returns exp(x) over its sum along an axis, of the type of `x`.

    Example:
        >>> softmax(np.array([1000.0, 1000.0])).tolist()
        [0.5, 0.5]
    """
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True))
