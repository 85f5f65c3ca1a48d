"""Few images, many inputs: a covariance that was seen too few times is drawn towards a multiple of the identity.

    C' = (1 - rho) C + rho (tr C / p) I

Without it, a layer whose inputs outnumber the images (a classifier after global pooling) seems to lose nothing with
half of its inputs: there is always a fit that is exact on the images that were seen. With many rows rho is about the
effective dimension over the number of rows, and does nothing; where C is such a multiple itself, rho stays near one.

References:
    Chen, Wiesel, Eldar, Hero, "Shrinkage Algorithms for MMSE Covariance Estimation", IEEE TSP 58(10), 2010 (OAS).
"""

from __future__ import annotations

import numpy as np

from bocr_onnx.recovery.patches import Floats


def shrinkage(covariance: Floats, n: int) -> float:
    """Returns rho, in [0, 1].

    Args:
        covariance: C, shape `(p, p)`.
        n: Rows it was estimated from.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> few, many = (np.cov(rng.normal(size=(n, 50)) * np.arange(1, 51), rowvar=False) for n in (20, 20_000))
        >>> shrinkage(few, 20) > 0.3, shrinkage(many, 20_000) < 0.01
        (True, True)
    """
    p = len(covariance)
    square, trace = float(np.einsum("ij,ij->", covariance, covariance)), float(np.trace(covariance))
    if p < 2 or square <= 0:
        return 0.0
    above = (1 - 2 / p) * square + trace**2
    below = (n + 1 - 2 / p) * (square - trace**2 / p)
    return 1.0 if below <= above else above / below


def shrink(covariance: Floats, n: int) -> Floats:
    """Returns C', shape `(p, p)`."""
    rho = shrinkage(covariance, n)
    shrunk = (1 - rho) * covariance
    shrunk[np.diag_indices_from(shrunk)] += rho * np.trace(covariance) / len(covariance)
    return np.asarray(shrunk)
