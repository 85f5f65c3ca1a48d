"""Which file the history is, what a search takes from it, and what it leaves there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bocr_onnx.errors import HistoryError, ResumeError, UsageError
from bocr_onnx.graph import write_text
from bocr_onnx.options import PruneOptions
from bocr_onnx.pipeline.measure import digest_of
from bocr_onnx.pipeline.run import Run
from bocr_onnx.search import Prior, PriorSearch, Problem, SearchSpace, Trial, allocate, read_record
from bocr_onnx.search.features import group_features, published_features
from bocr_onnx.search.history import History, SearchRecord, default_history, search_key, store_trial
from bocr_onnx.search.trial import completed, is_sound

MAX_SAME = 300
"""Evaluations of the same model that a search begins with."""


def open_history(path: str | Path | None) -> History | None:
    """Returns the history; nothing is read or made yet.

    Args:
        path: The file, or ``none`` for no history; None is the one that the environment variable
            ``BOCR_ONNX_HISTORY`` names, else the one in the user's data folder.

    Raises:
        UsageError: The name is empty.
    """
    if path == "":
        raise UsageError("`history` must name a file, got an empty name")
    name = str(default_history() if path is None else path)
    return None if name == "none" else History(name)


def check_transfer(options: PruneOptions, others: tuple[PriorSearch, ...]) -> None:
    """Checks that there is something to transfer where that is asked for.

    Raises:
        UsageError: There is not.
    """
    if options.transfer != "none" and not others:
        raise UsageError(
            f"`transfer={options.transfer}` must find a search of another model in the history, got none",
            hint="Search another model first, or name the file that holds one: `history=FILE`",
        )


def recall(run: Run, header: dict[str, Any], *, fresh: bool) -> Prior:
    """Returns what is known before a search, and keeps it in the run directory, so that a resumed one knows the same.

    Args:
        run: The run.
        header: Header of its journal.
        fresh: Whether the search begins now.

    Raises:
        UsageError: The search wants to learn from other models, and none is known.
        ResumeError: What an earlier start has kept cannot be read.
        HistoryError: The history cannot be read.
    """
    path, key = run.run_dir.prior, search_key(header)
    prior = None if fresh else _read(path, key, run.projection.space)
    if prior is None:
        prior = _ask(run, key)
        record = {"key": key, "past": asdict(prior)}
        write_text(path, json.dumps(record, default=lambda state: state.value) + "\n")
    check_transfer(run.options, prior.others)
    return prior


def _ask(run: Run, key: str) -> Prior:
    """Returns what the history knows, and the trials that are known anyway."""
    known = completed(run.known)
    if run.history is None:
        return Prior(known)
    assert run.images is not None
    space, model = run.projection.space, run.graph.sha256
    full = tuple(int(n) for n in space.full)
    same = run.history.same(model, digest_of(run.images), run.options.recover, space.names, full, without=key)
    others = run.history.others(model)
    if same or others:
        run.progress.note(f"history: {len(same)} evaluations of this model, {len(others)} other models")
    tried = {t.widths for t in known}
    return Prior(_nearest(run, (*known, *(t for t in same if t.widths not in tried))), others)


def _nearest(run: Run, trials: tuple[Trial, ...]) -> tuple[Trial, ...]:
    """Returns at most `MAX_SAME` trials, those nearest to the budget, in their order: every one slows the surrogate."""
    if len(trials) <= MAX_SAME:
        return trials
    widths = np.array([t.widths for t in trials], dtype=np.int64)
    use = run.projection.budget.use(run.projection.cost, widths)
    near = np.sort(np.argsort(np.abs(np.log(use)), kind="stable")[:MAX_SAME])
    return tuple(trials[i] for i in near)


def _read(path: Path, key: str, space: SearchSpace) -> Prior | None:
    """Returns what a search knew when it began; None where the file is of another search, or there is none."""
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["key"] != key:
            return None
        prior = read_record(Prior, record["past"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ResumeError(f"{path} must hold what the search knew when it began, got: {error!r}") from error
    if not all(is_sound(t) and space.holds(t.widths) for t in prior.same) or not all(
        p.is_sound() for p in prior.others
    ):
        raise ResumeError(f"{path} must hold what the search knew when it began, got policies of another one")
    return prior


class Recorder:
    """Writes ended trials into the history; gives up with a note where it cannot, for the journal has them too.

    Args:
        run: The run.
        problem: Its search.
        header: Header of its journal.
    """

    def __init__(self, run: Run, problem: Problem, header: dict[str, Any]) -> None:
        self._run, self._history, self._key = run, run.history, search_key(header)
        if run.history is not None:
            self._try(run.history.begin, _record(run, problem, self._key))

    def add(self, trial: Trial) -> None:
        """Writes a trial; again where it is known already."""
        if self._history is not None:
            self._try(self._history.add, self._key, store_trial(self._run.projection, trial))

    def _try(self, write: Callable[..., None], *values: object) -> None:
        try:
            write(*values)
        except HistoryError as error:
            self._history = None
            self._run.progress.note(f"the history is not written: {error.message}")


def _record(run: Run, problem: Problem, key: str) -> SearchRecord:
    assert run.images is not None
    options, space = run.options, run.projection.space
    return SearchRecord(
        key=key,
        model_sha256=run.graph.sha256,
        model=Path(run.graph.label).name,
        data_digest=digest_of(run.images),
        recover=options.recover,
        strategy=options.search,
        seed=options.seed,
        grid=options.grid,
        budget=dict(run.projection.budget.shares),
        group_names=space.names,
        full=tuple(int(n) for n in space.full),
        features=_rows(group_features(problem)),
        published=_rows(published_features(problem)),
        allocation=tuple((allocate(problem) / space.full).tolist()),
    )


def _rows(array: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, array.tolist()))
