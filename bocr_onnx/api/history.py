"""The history of searches: which file it is, and what a model is called in it."""

from __future__ import annotations

from pathlib import Path

from bocr_onnx.errors import UsageError
from bocr_onnx.graph import load
from bocr_onnx.options import PruneOptions
from bocr_onnx.search import PastSearch
from bocr_onnx.search.history import History, HistoryRow, StoredSearch, default_history

__all__ = ["History", "HistoryRow", "StoredSearch", "check_transfer", "model_sha256", "open_history"]


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


def model_sha256(path: str | Path) -> str:
    """Returns the digest a model has in the history.

    Raises:
        ModelError: The file cannot be read as a model.
    """
    return load(path).sha256


def check_transfer(options: PruneOptions, others: tuple[PastSearch, ...]) -> None:
    """Checks that there is something to transfer where that is asked for.

    Raises:
        UsageError: There is not.
    """
    if options.transfer != "none" and not others:
        raise UsageError(
            f"`transfer={options.transfer}` must find a search of another model in the history, got none",
            hint="Search another model first, or name the file that holds one: `history=FILE`",
        )
