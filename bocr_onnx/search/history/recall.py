"""What a search is told of earlier ones.

Damaged rows are left out, the search goes on as if they had never been: nothing it does depends on them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace

from bocr_onnx.search.history import rows
from bocr_onnx.search.history.records import SearchRecord
from bocr_onnx.search.prior import FEATURES, PUBLISHED, PriorSearch
from bocr_onnx.search.trial import Trial, TrialState

MIN_COMPLETE = 10
"""Complete trials from which on a search of another model has something to say."""

_COMPLETE = TrialState.COMPLETE.value


def recall_same(
    connection: sqlite3.Connection, function: tuple[str, str, str], groups: tuple[str, str], without: str
) -> tuple[Trial, ...]:
    """Returns the COMPLETE trials of one function, oldest search first, numbered anew, each policy once.

    Args:
        connection: To the history.
        function: Digest of the model, digest of the images, recovery.
        groups: Names and channels of the groups, as their columns say it.
        without: Key of the search that is left out.
    """
    query = f"""SELECT {rows.TRIALS} FROM searches JOIN trials ON search_key = key
        WHERE model_sha256 = ? AND data_digest = ? AND recover = ? AND group_names = ? AND full = ? AND key != ?
        AND state = ? ORDER BY created, searches.rowid, number"""
    full = tuple(rows.loads(groups[1]))
    first: dict[tuple[int, ...], Trial] = {}
    found = connection.execute(query, (*function, *groups, without, _COMPLETE))
    for trial in _sound(found, full):
        first.setdefault(trial.widths, trial)
    return tuple(replace(trial, number=number) for number, trial in enumerate(first.values()))


def recall_others(connection: sqlite3.Connection, model_sha256: str, limit: int) -> tuple[PriorSearch, ...]:
    """Returns the newest search of every other model that has enough COMPLETE trials, newest first."""
    searches = f"SELECT {rows.SEARCHES} FROM searches WHERE model_sha256 != ? ORDER BY created DESC, rowid DESC"
    trials = f"SELECT {rows.TRIALS} FROM trials WHERE search_key = ? AND state = ? ORDER BY number"
    found: dict[str, PriorSearch] = {}
    for record in _searches(connection.execute(searches, (model_sha256,))):
        if len(found) >= limit:
            break
        if record.model_sha256 in found or not _has_features(record):
            continue
        told = tuple(_sound(connection.execute(trials, (record.key, _COMPLETE)), record.full))
        if len(told) >= MIN_COMPLETE:
            found[record.model_sha256] = _prior(record, told)
    return tuple(found.values())


def _prior(record: SearchRecord, trials: tuple[Trial, ...]) -> PriorSearch:
    ratios = tuple(tuple(w / n for w, n in zip(t.widths, record.full, strict=True)) for t in trials)
    return PriorSearch(
        model=record.model,
        budget=min(record.budget.values(), default=1.0),
        features=record.features,
        published=record.published,
        allocation=record.allocation,
        ratios=ratios,
        rewards=tuple(t.objective for t in trials if t.objective is not None),
    )


def _has_features(record: SearchRecord) -> bool:
    """Returns whether the features are those of this version, so that they mean the same."""
    columns = [(len(f), len(p)) for f, p in zip(record.features, record.published, strict=True)]
    return bool(columns) and set(columns) == {(len(FEATURES), len(PUBLISHED))}


def _searches(found: Iterable[tuple[object, ...]]) -> Iterator[SearchRecord]:
    for row in found:
        with suppress(ValueError):
            yield rows.read_search(row)


def _sound(found: Iterable[tuple[object, ...]], full: tuple[int, ...]) -> Iterator[Trial]:
    for row in found:
        with suppress(ValueError):
            yield rows.read_trial(row, full).trial
