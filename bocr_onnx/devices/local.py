"""Latency on this host: ONNX Runtime, interleaved, raw samples kept."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bocr_onnx.graph import Array

BUDGET_S = 4.0
"""Time spent on measuring all models together."""

MIN_RUNS, MAX_RUNS = 15, 200


@dataclass(frozen=True, slots=True)
class Latency:
    """Time of one run.

    Attributes:
        samples_ms: Raw samples, in the order they were taken.
        threads: Intra-op threads.
        batch: Images per run.
    """

    samples_ms: tuple[float, ...]
    threads: int
    batch: int

    @property
    def median_ms(self) -> float:
        """Returns the median."""
        return float(np.median(self.samples_ms))

    @property
    def iqr_ms(self) -> float:
        """Returns the interquartile range."""
        low, high = np.percentile(self.samples_ms, [25, 75])
        return float(high - low)


def compare_latency(
    sessions: Sequence[Any], feeds: Mapping[str, Array], *, threads: int, budget_s: float = BUDGET_S
) -> tuple[Latency, ...]:
    """Returns the latency of several models on the same inputs, measured in turn: A B A B.

    Args:
        sessions: Of ONNX Runtime, opened with the same options.
        feeds: Inputs by name.
        threads: What the sessions were opened with; recorded.
        budget_s: Time to spend; at least 15 runs of each are made, at most 200.
    """
    for session in sessions:
        for _ in range(3):
            session.run(None, dict(feeds))
    samples: list[list[float]] = [[] for _ in sessions]
    start = time.perf_counter()
    for run in range(MAX_RUNS):
        if run >= MIN_RUNS and time.perf_counter() - start > budget_s:
            break
        for session, own in zip(sessions, samples, strict=True):
            begin = time.perf_counter()
            session.run(None, dict(feeds))
            own.append((time.perf_counter() - begin) * 1e3)
    batch = len(next(iter(feeds.values())))
    return tuple(Latency(tuple(own), threads, batch) for own in samples)
