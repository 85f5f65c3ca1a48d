"""Processes that start afresh: without the program's main module, deaf to Ctrl-C, never outliving their parent.

`multiprocessing` runs the main module again in every process it spawns, so a script without
``if __name__ == "__main__"`` would do everything again in each. Here nothing that a process needs lies in that
module, so it is hidden while one starts.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from multiprocessing.context import BaseContext, SpawnProcess
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any


class Worker(SpawnProcess):
    """A process of this machine."""

    def start(self) -> None:
        """Starts it."""
        with _no_interrupts(), _no_main():
            super().start()


class Context(BaseContext):
    """What a pool makes its processes with; remembers them.

    Attributes:
        made: All that were made.
    """

    _name = "spawn"

    def __init__(self) -> None:
        self.made: list[Worker] = []

    def Process(self, *args: Any, **kwargs: Any) -> Worker:
        """Returns a new process."""
        worker = Worker(*args, **kwargs)
        self.made.append(worker)
        return worker

    def kill(self) -> None:
        """Ends all processes at once."""
        for worker in self.made:
            if worker.pid is not None:
                worker.kill()


def settle(folder: Path) -> None:
    """Makes this process a worker: called first in it.

    Args:
        folder: Deleted where the parent is killed and cannot do it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # goes to the whole group; the parent ends its workers
    warnings.simplefilter("ignore")  # libraries' advice to developers: the parent has shown it
    Thread(target=_follow_parent, args=(folder,), daemon=True).start()


def _follow_parent(folder: Path) -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Holds Ctrl-C back; a process that starts meanwhile never gets it, not even before `settle`."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _no_main() -> Iterator[None]:
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
