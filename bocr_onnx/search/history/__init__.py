"""The history: what earlier searches tried, in one SQLite file that several runs may use at once."""

from bocr_onnx.search.history.place import VARIABLE, default_history
from bocr_onnx.search.history.records import (
    HistoryRow,
    SearchRecord,
    StoredSearch,
    StoredTrial,
    search_key,
    store_trial,
)
from bocr_onnx.search.history.schema import SCHEMA
from bocr_onnx.search.history.store import EXPORT_SCHEMA, History

__all__ = [
    "EXPORT_SCHEMA",
    "SCHEMA",
    "VARIABLE",
    "History",
    "HistoryRow",
    "SearchRecord",
    "StoredSearch",
    "StoredTrial",
    "default_history",
    "search_key",
    "store_trial",
]
