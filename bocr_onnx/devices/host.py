"""Latency on this host: ONNX Runtime, interleaved, raw samples of two clocks kept.

On a busy host the wall time of a run includes the time given to other processes; the CPU time of the calling thread
does not. That clock leaves out all other threads, so it measures a model only if the model runs on one thread.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bocr_onnx.devices.device import BUDGET_S, Clock, Latency
from bocr_onnx.graph import Array
from bocr_onnx.runtime import open_session, run_session

MIN_RUNS, MAX_RUNS = 16, 200
"""Runs of each model; even, so that every model is as often early as late in a round."""

WARM_UP_RUNS = 3

BUSY = 1.1
"""Median wall time over median CPU time above which a host is too busy for its wall time to be quoted."""


class Host:
    """This machine."""

    def measure(
        self,
        models: Sequence[bytes],
        feeds: Mapping[str, Array],
        *,
        threads: int,
        batch: int = 1,
        budget_s: float = BUDGET_S,
    ) -> tuple[Latency, ...]:
        """Returns the latency of every model on the same inputs; see `Device` and `time_sessions`."""
        sessions = [open_session(model, threads=threads) for model in models]
        return time_sessions(sessions, feeds, threads=threads, batch=batch, budget_s=budget_s)


def time_sessions(
    sessions: Sequence[Any], feeds: Mapping[str, Array], *, threads: int, batch: int = 1, budget_s: float = BUDGET_S
) -> tuple[Latency, ...]:
    """Returns the latency of sessions on the same inputs, measured in turn: A B B A A B B A.

    Three runs of each come first and are not recorded. Each is then run at least 16 and at most 200 times. All are
    quoted by one clock, see `choose_clock`.

    Args:
        sessions: ONNX Runtime sessions, opened with the same options.
        feeds: Inputs by name.
        threads: Intra-op threads the sessions were opened with, 0 for one per core; recorded.
        batch: Samples that the inputs hold; recorded.
        budget_s: Time to spend in s.

    Raises:
        ModelError: A model does not run.
    """
    inputs = dict(feeds)
    for session in sessions:
        for _ in range(WARM_UP_RUNS):
            run_session(session, inputs)
    wall: list[list[float]] = [[] for _ in sessions]
    cpu: list[list[float]] = [[] for _ in sessions]
    there = range(len(sessions))
    start = time.perf_counter()
    for n_runs in range(0, MAX_RUNS, 2):
        if n_runs >= MIN_RUNS and time.perf_counter() - start > budget_s:
            break
        for i in (*there, *reversed(there)):
            wall_ms, cpu_ms = _timed(sessions[i], inputs)
            wall[i].append(wall_ms)
            cpu[i].append(cpu_ms)
    clock = choose_clock(wall, cpu, threads=threads)
    return tuple(Latency(tuple(w), tuple(c), clock, threads, batch) for w, c in zip(wall, cpu, strict=True))


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


def _timed(session: Any, inputs: dict[str, Array]) -> tuple[float, float]:
    """Returns wall time and CPU time of one run in ms."""
    wall, cpu = time.perf_counter(), time.thread_time()
    session.run(None, inputs)
    cpu_s, wall_s = time.thread_time() - cpu, time.perf_counter() - wall
    return wall_s * 1e3, cpu_s * 1e3
