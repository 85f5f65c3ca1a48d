"""What people see: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from bocr_onnx.cli.wording import spelled

if TYPE_CHECKING:
    from bocr_onnx.progress import Update

EXIT_MISSED, EXIT_ERROR, EXIT_BUG = 1, 2, 70
"""Done but a target was missed; usage, data or model error; a bug. `signals` has those of an interrupt."""

_PLAIN_EVERY_S = 20.0


def print_error(message: str, hint: str) -> None:
    """Prints an error to stderr."""
    console = Console(stderr=True, soft_wrap=True)
    console.print(f"[bold red]error:[/] {escape(message)}", highlight=False)
    if hint:
        console.print(f"  {escape(hint)}", highlight=False)


def print_json(record: dict[str, Any]) -> None:
    """Prints a record to stdout as JSON."""
    sys.stdout.write(json.dumps(record, indent=2) + "\n")


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table to stdout; the first column is left-aligned, the others right."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table(title=escape(title), title_justify="left", title_style="bold")
    for i, name in enumerate(head):
        table.add_column(name, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


class TerminalProgress:
    """Progress bars with the time left on a terminal; a line now and then where there is none.

    Args:
        quiet: Whether nothing is shown.
        verbose: Whether details are shown too.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet)
        self._verbose = verbose

    @contextmanager
    def task(self, description: str) -> Iterator[Update]:
        """Shows a bar while the step is open."""
        if not self._console.is_terminal or self._console.quiet:
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
        self._console.print(f"  {spelled(text)}", highlight=False, markup=False, soft_wrap=True)

    def detail(self, text: str) -> None:
        """Prints a line where details are wanted."""
        if self._verbose:
            self.note(text)
