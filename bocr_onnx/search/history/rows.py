"""Records become rows, and rows become records once every value is checked."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from bocr_onnx.search.history.records import SearchRecord, StoredTrial
from bocr_onnx.search.journal import read_record
from bocr_onnx.search.prior import Row
from bocr_onnx.search.trial import Trial, TrialState

SEARCH_COLUMNS = tuple(f.name for f in fields(SearchRecord))
TRIAL_COLUMNS = tuple("search_key number widths use quantities score objective first seconds state".split())
SEARCHES, TRIALS = ", ".join(SEARCH_COLUMNS), ", ".join(TRIAL_COLUMNS)
KEPT = (TrialState.COMPLETE, TrialState.STOPPED)

_JSON = frozenset({"seed", "budget", "group_names", "full", "features", "published", "allocation"})


def search_values(record: SearchRecord) -> tuple[Any, ...]:
    """Returns the row of a search, in the order of `SEARCH_COLUMNS`."""
    return tuple(_value(name, getattr(record, name)) for name in SEARCH_COLUMNS)


def trial_values(key: str, stored: StoredTrial) -> tuple[Any, ...]:
    """Returns the row of a trial, in the order of `TRIAL_COLUMNS`."""
    trial = stored.trial
    costs = float(stored.use), dumps(dict(stored.quantities))
    measured = (_real(trial.score), _real(trial.objective), _real(trial.first), float(trial.seconds))
    return key, int(trial.number), dumps([int(w) for w in trial.widths]), *costs, *measured, trial.state.value


def dumps(value: object) -> str:
    """Returns the one JSON text of a value, so that equal values are equal texts."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False, default=int)


def is_kept(trial: Trial) -> bool:
    """Returns whether a trial says something: it was scored, and what it found is finite."""
    measured = (trial.score, trial.objective, trial.first)
    whole = trial.objective is not None or trial.state is TrialState.STOPPED
    return trial.state in KEPT and whole and all(m is None or math.isfinite(m) for m in measured)


def read_search(row: Sequence[Any]) -> SearchRecord:
    """Returns the search of a row.

    Raises:
        ValueError: Text is not JSON, or a value has another type, length or range.
    """
    columns = {name: loads(v) if name in _JSON else v for name, v in zip(SEARCH_COLUMNS, row, strict=True)}
    if any(isinstance(v, bytes) for v in row):
        raise ValueError("it must hold text and numbers, got bytes")
    record = read_record(SearchRecord, columns)
    n = len(record.full)
    if not len(record.group_names) == len(record.allocation) == len(record.features) == len(record.published) == n:
        raise ValueError("it must say the same number of groups everywhere")
    if min(record.full, default=1) < 1:
        raise ValueError("full must be at least 1")
    _check_finite((*record.budget.values(), *record.allocation, *_flat(record.features), *_flat(record.published)))
    return record


def read_trial(row: Sequence[Any], full: tuple[int, ...]) -> StoredTrial:
    """Returns the trial of a row.

    Args:
        row: In the order of `TRIAL_COLUMNS`.
        full: Channels of each group.

    Raises:
        ValueError: Text is not JSON, or a value has another type, length or range.
    """
    _, number, widths, use, quantities, score, objective, first, seconds, state = row
    kept = loads(widths)
    if not isinstance(kept, list) or not all(type(w) is int for w in kept):
        raise ValueError("widths must be whole numbers")
    if len(kept) != len(full) or not all(1 <= w <= n for w, n in zip(kept, full, strict=True)):
        raise ValueError("widths must be between 1 and the channels of each group")
    if not all(m is None or isinstance(m, float) for m in (score, objective, first)) or not isinstance(seconds, float):
        raise ValueError("score, objective, first and seconds must be numbers")
    trial = Trial(number, tuple(kept), TrialState(state), score, objective, seconds, first=first)
    if type(number) is not int or number < 0 or not is_kept(trial):
        raise ValueError("number, state and objective must be those of a trial that was scored")
    return StoredTrial(trial, _checked_use(use), _checked_quantities(quantities))


def read_budget(text: str) -> dict[str, float]:
    """Returns the shares of a budget, by name.

    Raises:
        ValueError: They are not.
    """
    found = loads(text)
    if not isinstance(found, dict) or not all(isinstance(v, int | float) for v in found.values()):
        raise ValueError("budget must be shares by name")
    return found


def loads(text: object) -> Any:
    """Returns parsed JSON.

    Raises:
        ValueError: It is not text, or not JSON.
    """
    if not isinstance(text, str):
        raise ValueError("it must be JSON, got no text")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it must be JSON, got nesting without end") from error


def _checked_use(use: Any) -> float:
    if not isinstance(use, float) or not math.isfinite(use):
        raise ValueError("use must be a finite number")
    return use


def _checked_quantities(text: Any) -> dict[str, int]:
    found = loads(text)
    if not isinstance(found, dict) or not all(type(n) is int for n in found.values()):
        raise ValueError("quantities must be whole numbers by name")
    return found


def _value(name: str, value: Any) -> Any:
    """Returns what the column takes; a file name that is not Unicode loses the bytes that are not."""
    if name in _JSON:
        return dumps(value)
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _real(value: float | None) -> float | None:
    return None if value is None else float(value)


def _flat(rows: tuple[Row, ...]) -> Row:
    return tuple(v for row in rows for v in row)


def _check_finite(values: Row) -> None:
    if not all(math.isfinite(v) for v in values):
        raise ValueError("every number must be finite")
