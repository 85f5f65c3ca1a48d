"""ONNX Runtime: sessions, threads, batches, and outputs for many images."""

from bocr_onnx.runtime.batching import close_batch
from bocr_onnx.runtime.predict import (
    WEIGHED,
    Columns,
    Head,
    Outputs,
    Progress,
    batch_size,
    batches_of,
    make_head,
    open_heads,
    predict,
    predict_heads,
    tensors_of,
    view_heads,
    with_heads,
)
from bocr_onnx.runtime.session import first_that_runs, open_session, run_once, run_session, session_threads

__all__ = [
    "Columns",
    "WEIGHED",
    "Head",
    "Outputs",
    "Progress",
    "batch_size",
    "batches_of",
    "close_batch",
    "first_that_runs",
    "make_head",
    "open_heads",
    "open_session",
    "predict",
    "predict_heads",
    "run_once",
    "run_session",
    "session_threads",
    "tensors_of",
    "view_heads",
    "with_heads",
]
