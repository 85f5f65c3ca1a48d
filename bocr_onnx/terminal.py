"""Long steps on a terminal or in a notebook."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bocr_onnx.progress import Update

_PLAIN_EVERY_S = 20.0


class TerminalProgress:
    """Progress bars with the time left on a terminal and in a notebook; a line now and then where there is none.

    Args:
        quiet: Whether nothing is shown.
        verbose: Whether details are shown too.
        worded: Says a note in the words of whoever reads it.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False, worded: Callable[[str], str] = str) -> None:
        self._console = Console(stderr=True, quiet=quiet)
        self._verbose, self._worded = verbose, worded
        moves = self._console.is_terminal or (self._console.is_jupyter and find_spec("ipywidgets") is not None)
        self._moves = moves and not quiet

    @contextmanager
    def task(self, description: str) -> Iterator[Update]:
        """Shows a bar while the step is open."""
        if not self._moves:
            yield self._plain(description)
            return
        bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
            console=self._console,
            transient=True,
        )
        with bars:
            number = bars.add_task(description, total=None, detail="")
            yield lambda done, total, detail="": bars.update(number, completed=done, total=total, detail=detail)

    def _plain(self, description: str) -> Update:
        self._console.print(description, highlight=False, markup=False)
        start = last = time.monotonic()

        def update(done: int, total: int, detail: str = "") -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _PLAIN_EVERY_S and 0 < done < total:
                last = now
                left = (now - start) / done * (total - done)
                self._console.print(f"  {done} of {total}, {left:.0f} s left  {detail}", highlight=False, markup=False)

        return update

    def note(self, text: str) -> None:
        """Prints a line."""
        self._console.print(f"  {self._worded(text)}", highlight=False, markup=False, soft_wrap=True)

    def detail(self, text: str) -> None:
        """Prints a line where details are wanted."""
        if self._verbose:
            self.note(text)
