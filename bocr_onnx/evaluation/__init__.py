"""Score of a model on data, and recovery of what a cut loses, on ONNX Runtime."""

from bocr_onnx.evaluation.batching import close_batch
from bocr_onnx.evaluation.calibration import (
    Calibration,
    Weights,
    calibrate,
    weigh_curves,
)
from bocr_onnx.evaluation.patches import Affine, find_affines
from bocr_onnx.evaluation.score import Score, classes_of, distortion, predict, score_outputs
from bocr_onnx.evaluation.scorer import PolicyScorer, ScoredModel
from bocr_onnx.evaluation.session import first_that_runs, open_session, run_once, run_session, session_threads

__all__ = [
    "Affine",
    "Calibration",
    "PolicyScorer",
    "Score",
    "ScoredModel",
    "Weights",
    "calibrate",
    "classes_of",
    "close_batch",
    "distortion",
    "find_affines",
    "first_that_runs",
    "open_session",
    "predict",
    "run_once",
    "run_session",
    "score_outputs",
    "session_threads",
    "weigh_curves",
]
