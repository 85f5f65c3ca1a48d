"""An interrupt waits for the end of a training step, so that what is kept is a whole state."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(slots=True)
class Stop:
    """What has been asked for.

    Attributes:
        received: A signal that has come, or None.
    """

    received: int | None = None


@contextmanager
def deferred() -> Iterator[Stop]:
    """Yields what a signal sets instead of raising; a second one is obeyed at once.

    Outside the main thread, where Python handles no signals, nothing is changed. On leaving, a signal that has come
    is handed to the handler that it was meant for.

    Example:
        >>> import os
        >>> try:
        ...     with deferred() as stop:
        ...         os.kill(os.getpid(), signal.SIGINT)
        ...         print(stop.received is not None)
        ... except KeyboardInterrupt:
        ...     print("interrupted on leaving")
        True
        interrupted on leaving
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        if stop.received is not None:
            _obey(before[signal.Signals(number)], number, frame)
        stop.received = number

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stop.received is not None:
        _obey(before[signal.Signals(stop.received)], stop.received, None)


def _obey(handler: Any, number: int, frame: FrameType | None) -> None:
    if callable(handler):
        handler(number, frame)
    elif handler == signal.SIG_DFL:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
