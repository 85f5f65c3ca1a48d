"""What a search takes from history, and what it leaves there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bocr_onnx.api.ground import Ground
from bocr_onnx.api.run import Run
from bocr_onnx.errors import HistoryError, ResumeError
from bocr_onnx.graph import write_text
from bocr_onnx.search import Past, PastSearch, Problem, Trial, allocate, read_record
from bocr_onnx.search.features import group_features, published_features
from bocr_onnx.search.history import SearchRecord, search_key, trial_cost


def recall(run: Run, ground: Ground, header: dict[str, Any], known: tuple[Trial, ...], *, fresh: bool) -> Past:
    """Returns what is known before a search, and keeps it in the run directory, so that a resumed one knows the same.

    Args:
        run: The run.
        ground: Its images.
        header: Of its journal.
        known: Trials at other budgets of the same run.
        fresh: Whether the search begins now.

    Raises:
        ResumeError: What an earlier start has kept cannot be read.
        HistoryError: The history cannot be read.
    """
    path = run.run_dir.past
    if not fresh and path.exists():
        return _read(path)
    same: tuple[Trial, ...] = ()
    others: tuple[PastSearch, ...] = ()
    if run.history is not None:
        names, full = run.projection.space.names, tuple(int(n) for n in run.projection.space.full)
        same = run.history.same(
            run.graph.sha256, _digest(ground), run.options.recover, names, full, without=search_key(header)
        )
        others = run.history.others(run.graph.sha256)
        if same or others:
            run.progress.note(f"history: {len(same)} evaluations of this model, {len(others)} other models")
    tried = {t.widths for t in known}
    past = Past((*known, *(t for t in same if t.widths not in tried)), others)
    write_text(path, json.dumps(asdict(past), default=lambda state: state.value) + "\n")
    return past


def _read(path: Path) -> Past:
    try:
        return read_record(Past, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise ResumeError(f"{path} must hold what the search knew when it began, got: {error}") from error


class Recorder:
    """Writes ended trials into the history; gives up with a note where it cannot, for the journal has them too.

    Args:
        run: The run.
        problem: Its search.
        ground: Its images.
        header: Of its journal.
    """

    def __init__(self, run: Run, problem: Problem, ground: Ground, header: dict[str, Any]) -> None:
        self._run, self._history, self._key = run, run.history, search_key(header)
        if run.history is not None:
            self._try(run.history.begin, _record(run, problem, ground, self._key))

    def add(self, trial: Trial) -> None:
        """Writes a trial; again where it is known already."""
        if self._history is not None:
            self._try(self._history.add, self._key, trial, trial_cost(self._run.projection, trial))

    def _try(self, write: Callable[..., None], *values: object) -> None:
        try:
            write(*values)
        except HistoryError as error:
            self._history = None
            self._run.progress.note(f"the history is not written: {error.message}")


def _record(run: Run, problem: Problem, ground: Ground, key: str) -> SearchRecord:
    options, space = run.options, run.projection.space
    return SearchRecord(
        key=key,
        model_sha256=run.graph.sha256,
        model=Path(options.model).name,
        data_digest=_digest(ground),
        recover=options.recover,
        strategy=options.strategy,
        seed=options.seed,
        grid=options.grid,
        budget=run.projection.budget.given,
        group_names=space.names,
        full=tuple(int(n) for n in space.full),
        features=_rows(group_features(problem)),
        published=_rows(published_features(problem)),
        allocation=tuple((allocate(problem) / space.full).tolist()),
    )


def _rows(array: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, array.tolist()))


def _digest(ground: Ground) -> str:
    """Returns a digest of the images that decide what a policy scores."""
    digest = hashlib.sha256()
    for images in (ground.images.score, ground.images.recovery):
        digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()
