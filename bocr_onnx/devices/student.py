"""Quantiles of Student's distribution, for intervals of few samples; scipy would take longer to load than to run."""

from __future__ import annotations

import math
from statistics import NormalDist

STEPS = 60
"""Bisections; each halves what is not known."""


def student_quantile(share: float, freedom: int) -> float:
    """Returns what a variable stays below with a probability.

    Args:
        share: The probability, in (0.5, 1).
        freedom: Degrees of freedom, at least 1.

    Example:
        >>> round(student_quantile(0.995, 5), 4), round(student_quantile(0.975, 1000), 4)
        (4.0321, 1.9623)
    """
    low, high = 0.0, NormalDist().inv_cdf(share) + 1
    while _below(high, freedom) < share:
        high *= 2
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _below(middle, freedom) < share else (low, middle)
    return (low + high) / 2


def _below(value: float, freedom: int) -> float:
    """Returns the distribution function, by its finite series for whole degrees of freedom.

    References:
        Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    angle = math.atan(value / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2 == 1
    term = total = cosine if odd else 1.0
    for k in range(3 if odd else 2, freedom - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    inside = sine * total
    if odd:
        inside = 2 / math.pi * (angle + (inside if freedom > 1 else 0.0))
    return (1 + inside) / 2
