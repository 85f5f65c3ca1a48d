"""Searches as a person asks for them: by the beginning of a key, whole, every row checked."""

from __future__ import annotations

import difflib
import shlex
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bocr_onnx.errors import HistoryError, UsageError
from bocr_onnx.search.history import rows
from bocr_onnx.search.history.records import HistoryRow, StoredSearch, short_key

_SHOWN = 5
_BEST = "FROM trials WHERE search_key = key AND state = 'complete' ORDER BY objective DESC, number LIMIT 1"


def find_key(connection: sqlite3.Connection, prefix: str) -> str:
    """Returns the key that begins with `prefix`.

    Raises:
        UsageError: There is none, or several; the nearest are named.
    """
    rows = connection.execute("SELECT key FROM searches ORDER BY created DESC, rowid DESC")
    keys = [key for (key,) in rows if isinstance(key, str)]
    found = [key for key in keys if prefix and key.startswith(prefix.lower())]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"history key {prefix!r} is ambiguous: {len(found)} searches start with it",
            hint=f"Give more characters: {_listed(found)}",
        )
    short = [short_key(key) for key in keys]
    near = difflib.get_close_matches(prefix, short, n=_SHOWN, cutoff=0)
    hint = f"The nearest: {_listed(near)}" if near else "The history is empty."
    raise UsageError(f"no search in the history has the key {prefix!r}", hint=hint)


def read_lines(connection: sqlite3.Connection, path: Path) -> tuple[HistoryRow, ...]:
    """Returns every search in a line, newest first.

    Raises:
        HistoryError: One of them is damaged.
    """
    query = f"""SELECT key, model, budget, strategy, seed,
        (SELECT count(*) FROM trials WHERE search_key = key), (SELECT score {_BEST}), (SELECT objective {_BEST}),
        created FROM searches ORDER BY created DESC, rowid DESC"""
    return tuple(_line(row, path) for row in connection.execute(query))


def read_stored(connection: sqlite3.Connection, key: str, path: Path) -> StoredSearch:
    """Returns the search of a whole key, and its trials by number.

    Raises:
        HistoryError: One of its rows is damaged.
    """
    row: Sequence[Any] = connection.execute(f"SELECT {rows.SEARCHES} FROM searches WHERE key = ?", (key,)).fetchone()
    trials = connection.execute(f"SELECT {rows.TRIALS} FROM trials WHERE search_key = ? ORDER BY number", (key,))
    try:
        record = rows.read_search(row)
        return StoredSearch(record, tuple(rows.read_trial(trial, record.full) for trial in trials))
    except ValueError as error:
        raise _damaged(key, error, path) from error


def _line(row: Sequence[Any], path: Path) -> HistoryRow:
    key, model, budget, strategy, seed, n_trials, score, objective, created = row
    try:
        shares, number = rows.read_budget(budget), rows.loads(seed)
        if not all(isinstance(text, str) for text in (model, strategy, created)) or type(number) is not int:
            raise ValueError("model, strategy, seed and created must be of their types")
        if not all(value is None or isinstance(value, float) for value in (score, objective)):
            raise ValueError("score and objective must be numbers")
    except ValueError as error:
        raise _damaged(key, error, path) from error
    return HistoryRow(short_key(key), model, shares, strategy, number, n_trials, score, objective, created)


def _damaged(key: str, error: ValueError, path: Path) -> HistoryError:
    short = short_key(key)
    return HistoryError(
        f"history {path} must hold rows as they were written, got a damaged one of search {short}: {error}",
        hint=f"Remove that search: bocr-onnx history forget {short} --yes --history {shlex.quote(str(path))}",
    )


def _listed(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(short_key(key) for key in keys[:_SHOWN]) + more
