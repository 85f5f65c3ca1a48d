"""Small dense solves: on one thread, and where rounding has made a covariance indefinite.

A solve of a few hundred unknowns takes a millisecond on one core; with a thread per core, BLAS threads that wait for
each other on a busy machine made it up to 500 times slower.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg
from threadpoolctl import ThreadpoolController

Floats = npt.NDArray[np.float64]

LIFTS = (0.0, 1e-9, 1e-6, 1e-3, 1.0)
"""Shares of the largest diagonal entry that are added to the diagonal, one after the other."""


SMALL = 64
"""Unknowns up to which several systems are solved in one call."""


@cache
def _controller() -> Any:
    return ThreadpoolController()


def one_thread() -> AbstractContextManager[Any]:
    """Returns a context in which linear algebra runs on one thread."""
    limited: AbstractContextManager[Any] = _controller().limit(limits=1, user_api="blas")
    return limited


def solve_positive(matrix: Floats, right: Floats) -> Floats:
    """Returns the solution of a linear system whose matrix is positive definite but for rounding.

    A layer whose inputs are all alike has a covariance of nothing but rounding, which may have negative eigenvalues:
    its diagonal is lifted until there are none.

    Args:
        matrix: Shape `(n, n)`, symmetric.
        right: Shape `(n, m)`.

    Example:
        >>> solve_positive(np.array([[1.0, 1.0], [1.0, 1.0 - 1e-12]]), np.ones((2, 1))).round(3).tolist()
        [[0.5], [0.5]]
    """
    for lift in LIFTS:
        lifted = matrix if not lift else matrix + lift * np.abs(matrix).max() * np.eye(len(matrix))
        try:
            return np.asarray(scipy.linalg.solve(lifted, right, assume_a="pos", check_finite=False))
        except np.linalg.LinAlgError:
            continue
    return np.zeros_like(right)


def solve_stack(matrices: Floats, right: Floats) -> Floats:
    """Returns the solutions of several systems, each positive definite but for rounding.

    Args:
        matrices: Shape `(n_systems, n, n)`, symmetric.
        right: Shape `(n_systems, n, m)`.
    """
    if len(matrices) > 1 and matrices.shape[1] <= SMALL:
        return solve_blocks(matrices, right)
    return np.stack([solve_positive(*pair) for pair in zip(matrices, right, strict=True)])


def solve_blocks(blocks: Floats, right: Floats) -> Floats:
    """Returns the solutions of small systems, of least norm where one is singular.

    Args:
        blocks: Shape `(..., t, t)`.
        right: Shape `(..., t, m)`.
    """
    try:
        return np.asarray(np.linalg.solve(blocks, right))
    except np.linalg.LinAlgError:
        return np.asarray(np.linalg.pinv(blocks) @ right)
