"""The history: what earlier searches tried, in one SQLite file that several runs may use at once."""

from bocr_onnx.search.history.place import VARIABLE, default_history
from bocr_onnx.search.history.records import (
    HistoryRow,
    SearchRecord,
    StoredSearch,
    StoredTrial,
    TrialCost,
    search_key,
    trial_cost,
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
    "TrialCost",
    "default_history",
    "search_key",
    "trial_cost",
]
