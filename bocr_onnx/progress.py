"""How long work is reported: a protocol, and the silent one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Update(Protocol):
    """Told how far a step is."""

    def __call__(self, done: int, total: int, detail: str = "") -> None:
        """Takes how many of how many are done, and a few words beside it."""
        ...


class Progress(Protocol):
    """Shows long steps to somebody."""

    def task(self, description: str) -> AbstractContextManager[Update]:
        """Opens a step; the update it yields is called as the step advances."""
        ...

    def note(self, text: str) -> None:
        """Says one thing worth knowing."""
        ...

    def detail(self, text: str) -> None:
        """Says one thing for those who want to know more."""
        ...


class Silent:
    """Shows nothing."""

    @contextmanager
    def task(self, description: str) -> Iterator[Update]:
        """Opens a step that nobody watches."""
        del description
        yield lambda done, total, detail="": None

    def note(self, text: str) -> None:
        """Says nothing."""
        del text

    def detail(self, text: str) -> None:
        """Says nothing."""
        del text


def shown(progress: Progress | None) -> Progress:
    """Returns who is shown long steps: who was named, else whoever reads a notebook, else nobody."""
    if progress is not None:
        return progress
    if not _in_notebook():
        return Silent()
    from bocr_onnx.terminal import TerminalProgress

    return TerminalProgress()


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    return shell is not None and type(shell.get_ipython()).__name__ == "ZMQInteractiveShell"
