"""What raw samples say: the clock that is quoted, how many times faster, and whether to trust it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bocr_onnx.devices.device import Clock, Latency, Machine
from bocr_onnx.devices.student import student_quantile

BUSY = 1.1
"""Median wall time over median CPU time above which a host is too busy for its wall time to be quoted."""

CONFIDENCE = 0.99
"""An interval of 95 % holds 1 in 19 of 20 comparisons of a model with itself only three times in four."""

DRIFT = 1.05
"""Last third over first third of the samples from which the device has changed while it was measured."""

SPREAD = 0.3
"""Interquartile range over median from which samples scatter too much."""


@dataclass(frozen=True, slots=True)
class Speedup:
    """How many times faster a model is than another one, with its interval.

    Attributes:
        value: Time of the other one over its own.
        low: Lower end of the interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    @property
    def margin(self) -> float:
        """Returns half the width of the interval."""
        return (self.high - self.low) / 2


def choose_clock(wall_ms: Sequence[Sequence[float]], cpu_ms: Sequence[Sequence[float]], *, threads: int) -> Clock:
    """Returns the clock by which compared models are quoted.

    That is CPU time where the models run on one thread and the median wall time of any of them exceeds 1.1 times its
    median CPU time, and wall time otherwise: the calling thread's CPU time leaves the other threads out. A CPU clock
    too coarse for the runs (a median of zero) is not quoted either.

    Args:
        wall_ms: Samples of wall time in ms, one sequence for each model.
        cpu_ms: Samples of CPU time in ms, likewise.
        threads: Intra-op threads, 0 for one per core.
    """
    if threads != 1:
        return "wall"
    medians = [(float(np.median(wall)), float(np.median(cpu))) for wall, cpu in zip(wall_ms, cpu_ms, strict=True)]
    readable = all(cpu > 0 for _, cpu in medians)
    return "cpu" if readable and any(wall > BUSY * cpu for wall, cpu in medians) else "wall"


def speedup(before: Latency, after: Latency) -> Speedup:
    """Returns how many times faster a model is than the one it is compared with, by the clock that both are quoted by.

    The logarithm of the ratio of both medians is taken of each round; then the mean of them, and its Student's
    interval. Rounds are the unit, since samples of one session share what makes it fast or slow: where its memory lies.

    Args:
        before: What it is compared with.
        after: The model; measured in turn with it.
    """
    pairs = zip(before.rounds_ms(), after.rounds_ms(), strict=True)
    logs = np.array([math.log(float(np.median(b)) / float(np.median(a))) for b, a in pairs])
    centre, n = float(logs.mean()), len(logs)
    if n < 2:
        return Speedup(math.exp(centre), 0.0, math.inf)
    reach = _reach(logs)
    return Speedup(math.exp(centre), math.exp(centre - reach), math.exp(centre + reach))


def typical(one: Latency) -> tuple[float, float, float]:
    """Returns the time of a run in ms, and the ends of its interval: the mean of the logarithms of round medians.

    Args:
        one: The latency, by the clock it is quoted by.
    """
    logs = np.array([math.log(max(float(np.median(samples)), 1e-9)) for samples in one.rounds_ms()])
    centre, n = float(logs.mean()), len(logs)
    if n < 2:
        return math.exp(centre), 0.0, math.inf
    reach = _reach(logs)
    return math.exp(centre), math.exp(centre - reach), math.exp(centre + reach)


def _reach(values: npt.NDArray[np.float64]) -> float:
    """Returns half the width of Student's interval of a mean."""
    n = len(values)
    return student_quantile((1 + CONFIDENCE) / 2, n - 1) * float(values.std(ddof=1)) / math.sqrt(n)


def doubts(
    machine: Machine, latencies: Sequence[Latency], provider: str, providers: Sequence[Sequence[str]]
) -> tuple[str, ...]:
    """Returns why figures may not be trusted, in words.

    Args:
        machine: Where they were taken.
        latencies: The figures.
        provider: What was asked for.
        providers: What each session had.
    """
    found = []
    if machine.emulated:
        found.append(f"the processor ({machine.cpu}) is emulated: times mean nothing")
    if any(names[:1] != [provider] for names in map(list, providers)):
        found.append(f"{provider} was asked for, a session fell back to {list(providers[0])}")
    elsewhere = {k.provider for one in latencies for k in one.kernels} - {provider, ""}
    if elsewhere:
        n = sum(k.provider in elsewhere for one in latencies for k in one.kernels)
        found.append(f"{n} nodes ran on {', '.join(sorted(elsewhere))} instead of {provider}")
    if machine.battery.startswith("Discharging"):
        found.append("it runs on battery, which may slow it down")
    found += [text for one in latencies[:1] if (text := _busy(one))]
    drifts = [_drift(one) for one in latencies]
    if max(drifts) > DRIFT:
        found.append(
            f"the last third of the runs took {max(drifts) - 1:.0%} longer than the first: it got hot, or busy"
        )
    spreads = [one.iqr_ms / max(one.median_ms, 1e-9) for one in latencies]
    if max(spreads) > SPREAD:
        found.append(f"times scatter by {max(spreads):.0%} (interquartile range over median)")
    return tuple(found)


def _busy(one: Latency) -> str:
    if one.clock == "cpu":
        return "other processes took part of the time: the CPU time of the thread is quoted, not wall time"
    return ""


def _drift(one: Latency) -> float:
    third = max(1, len(one.samples_ms) // 3)
    return float(np.median(one.samples_ms[-third:])) / max(float(np.median(one.samples_ms[:third])), 1e-9)
