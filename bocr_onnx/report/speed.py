"""The wording of a change of latency and of the clock it was measured by, for every text the package prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SAME = 1.02
"""Latencies that differ by no more than this factor are the same."""

CLOCKS = {"cpu": "CPU time of one thread", "wall": "wall time"}


def speed_text(before_ms: float, after_ms: float) -> str:
    """Returns how fast a model is compared to its original.

    Args:
        before_ms: Latency of the original in ms, above zero.
        after_ms: Latency of the model in ms by the same clock, above zero.

    Examples:
        >>> speed_text(1.64, 1.0), speed_text(1.0, 1.43), speed_text(1.0, 1.01)
        ('1.64 times faster', '1.43 times slower', 'as fast')
    """
    factor = max(before_ms, after_ms) / min(before_ms, after_ms)
    if factor <= SAME:
        return "as fast"
    return f"{factor:.2f} times {'slower' if after_ms > before_ms else 'faster'}"


def is_slower(before_ms: float, after_ms: float) -> bool:
    """Returns whether `speed_text` calls a model slower than its original; both in ms, above zero."""
    return after_ms > SAME * before_ms


def clock_text(latency: Mapping[str, Any]) -> str:
    """Returns the name of the clock by which a report's latency is quoted; wall time in reports older than the choice.

    Args:
        latency: The report's record of that name.

    Examples:
        >>> clock_text({"clock": "cpu"}), clock_text({"clock": "wall"})
        ('CPU time of one thread', 'wall time')
    """
    return CLOCKS[latency.get("clock", "wall")]
