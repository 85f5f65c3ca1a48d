"""ONNX Runtime: sessions, threads, batches, and outputs for many images."""

from bocr_onnx.runtime.batching import close_batch
from bocr_onnx.runtime.predict import Progress, batch_size, predict
from bocr_onnx.runtime.session import first_that_runs, open_session, run_once, run_session, session_threads

__all__ = [
    "Progress",
    "batch_size",
    "close_batch",
    "first_that_runs",
    "open_session",
    "predict",
    "run_once",
    "run_session",
    "session_threads",
]
