"""What people see: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

EXIT_MISSED, EXIT_ERROR, EXIT_BUG = 1, 2, 70
"""Done but a target was missed; usage, data or model error; a bug. `signals` has those of an interrupt."""


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
