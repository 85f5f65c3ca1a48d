"""How far two lists of outputs are apart, and which differences are rounding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bocr_onnx.graph import Array, ModelGraph, is_weighted

TOLERANCE = 1e-4
SMALLEST_SCALE = 1e-6
"""Outputs that are smaller throughout are held to this: a difference of equal numbers is nothing but rounding."""
SATURATED_SCALE = 1e-2
"""The same after an operator that saturates: a sigmoid rounds in units of one, not of itself."""
SATURATING = frozenset({"Sigmoid", "HardSigmoid", "Softmax", "Tanh", "Erf", "Hardmax", "Exp"})
MAX_STEPS_BACK = 64
NUDGE = 1e-6


@dataclass(frozen=True, slots=True)
class Proof:
    """What the comparison measured.

    Attributes:
        max_abs_diff: Largest absolute difference over all outputs.
        max_rel_diff: The same, divided by the largest absolute value of that output.
        tolerance: Bound on `max_rel_diff`.
    """

    max_abs_diff: float
    max_rel_diff: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Returns whether the relative difference is within the tolerance."""
        return bool(self.max_rel_diff <= self.tolerance)


def compare(expected: Sequence[Array], got: Sequence[Array], scales: Sequence[float] = ()) -> Proof:
    """Returns the largest differences between two lists of outputs.

    Args:
        expected: Outputs.
        got: As many, of the same shapes.
        scales: What the largest value of each counts as at least; `SMALLEST_SCALE` where empty.
    """
    absolute = relative = 0.0
    for a, b, least in zip(expected, got, scales or [SMALLEST_SCALE] * len(expected), strict=True):
        if a.shape != b.shape:
            return Proof(float("inf"), float("inf"), TOLERANCE)
        if not a.size or a.dtype.kind not in "fiub":
            continue
        wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
        same = np.isclose(wide_a, wide_b, rtol=0, atol=0, equal_nan=True)
        with np.errstate(invalid="ignore"):  # inf - inf, which `same` takes out
            difference = float(np.max(np.where(same, 0.0, np.abs(wide_a - wide_b))))
        finite = np.abs(wide_a[np.isfinite(wide_a)])
        scale = max(float(finite.max()) if finite.size else 0.0, least)
        difference = difference if np.isfinite(difference) else float("inf")
        absolute = max(absolute, difference)
        relative = max(relative, difference / scale)
    return Proof(absolute, relative, TOLERANCE)


def nudged(feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Returns inputs that differ in their last bits."""
    rng = np.random.default_rng(0)
    return {
        name: (x * (1 + NUDGE * rng.uniform(-1, 1, x.shape))).astype(x.dtype) if x.dtype.kind == "f" else x
        for name, x in feeds.items()
    }


def above_noise(expected: Sequence[Array], repeated: Sequence[Array], scales: Sequence[float]) -> list[float]:
    """Returns scales by which differences as large as rounding's are tolerated, in outputs that cancel to nothing.

    Where large numbers cancel, what is left is rounding: it changes as much when the inputs change in their last bits.
    """
    noise = [compare([a], [b]).max_abs_diff for a, b in zip(expected, repeated, strict=True)]
    return [max(s, min(n / TOLERANCE, SATURATED_SCALE)) for s, n in zip(scales, noise, strict=True)]


def smallest_scale(graph: ModelGraph, name: str) -> float:
    """Returns the scale that a tensor is held to at least: a larger one where an operator near its end saturates."""
    waiting, seen = [name], set[str]()
    while waiting and len(seen) < MAX_STEPS_BACK:
        name = waiting.pop()
        index = graph.producer.get(name)
        if index is None or name in seen or is_weighted(graph.nodes[index]):
            continue
        seen.add(name)
        if graph.nodes[index].op in SATURATING:
            return SATURATED_SCALE
        waiting.extend(n for n in graph.nodes[index].inputs if n)
    return SMALLEST_SCALE
