"""Ctrl-C and SIGTERM: both end a command as an interrupt does, and the exit code says which it was."""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import ParamSpec

P = ParamSpec("P")

NOTHING_KEPT = "Nothing is kept yet: start again with the same command."

_received = [int(signal.SIGINT)]


def listen() -> None:
    """Makes SIGTERM an interrupt; does nothing outside the main thread."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    del frame
    _received[0] = number
    raise KeyboardInterrupt


def stopped_code() -> int:
    """Returns the exit code of an interrupted command: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + _received[0]


def stoppable(command: Callable[P, None], hint: str = "") -> Callable[P, None]:
    """Returns a command that ends with a line and the right code where an interrupt escapes it.

    Args:
        command: A subcommand.
        hint: What to do next; nothing is left to go on with where it is empty.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            from bocr_onnx.cli.output import print_error

            print_error("interrupted; nothing was written", hint or NOTHING_KEPT)
            raise SystemExit(stopped_code()) from None

    return run
