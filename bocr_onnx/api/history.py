"""The history of searches: which file it is, and what a model is called in it."""

from __future__ import annotations

from pathlib import Path

from bocr_onnx.graph import load
from bocr_onnx.pipeline.history import open_history
from bocr_onnx.search.history import History, HistoryRow, StoredSearch

__all__ = ["History", "HistoryRow", "StoredSearch", "model_sha256", "open_history"]


def model_sha256(path: str | Path) -> str:
    """Returns the digest a model has in the history.

    Raises:
        ModelError: The file cannot be read as a model.
    """
    return load(path).sha256
