"""What a runner elsewhere prints: JSON between two marks, or the words of what went wrong."""

from __future__ import annotations

import json
import re
from typing import Any

from bocr_onnx.devices import runner
from bocr_onnx.devices.runner import BEGIN, END
from bocr_onnx.errors import DeviceError, ModelError

SLACK_S = 600.0
"""Time beyond what a request asks for, for the way there, sessions and memory."""

LIMITS = {
    "warm_up": runner.WARM_UP_RUNS,
    "min_rounds": runner.MIN_ROUNDS,
    "max_rounds": runner.MAX_ROUNDS,
    "min_runs": runner.MIN_RUNS,
    "max_runs": runner.MAX_RUNS,
}
"""Rounds and runs of the Python runner, for those written in other languages."""

OUT_OF_MEMORY = re.compile(r"bad_alloc|[Ff]ailed to allocate|MemoryError|Cannot allocate memory")


def read_answer(device: str, output: str) -> dict[str, Any]:
    """Returns the object that a runner has printed last.

    Raises:
        DeviceError: There is none, or something else.
    """
    _, begun, rest = output.rpartition(BEGIN)
    text, ended, _ = rest.partition(END)
    if not begun or not ended:
        last = (output.strip().splitlines() or ["nothing"])[-1][:300]
        raise DeviceError(f"{device} must give a result, got: {last}")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DeviceError(f"{device} must give a whole result, got: {error}") from error
    if not isinstance(found, dict):
        raise DeviceError(f"{device} must give a whole result, got {type(found).__name__}")
    return found


def fault_of(device: str, text: str) -> DeviceError | ModelError:
    """Returns what a runner says went wrong, in words."""
    if OUT_OF_MEMORY.search(text):
        return DeviceError(f"{device} must have memory enough for the model, got: {text}")
    if "provider " in text or "cores" in text:
        return DeviceError(f"{device}: {text}")
    return ModelError(f"{device} must run the model, got: {text}")
