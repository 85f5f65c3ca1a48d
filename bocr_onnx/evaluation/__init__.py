"""Score of a model on data, and recovery of what a cut loses, on ONNX Runtime."""

from bocr_onnx.evaluation.batching import close_batch
from bocr_onnx.evaluation.calibration import (
    Calibration,
    PolicyScorer,
    Recovery,
    ScoredModel,
    Weights,
    calibrate,
    weigh_curves,
)
from bocr_onnx.evaluation.score import Score, classes_of, distortion, predict, score_outputs
from bocr_onnx.evaluation.session import open_session, run_once, run_session

__all__ = [
    "Calibration",
    "PolicyScorer",
    "Recovery",
    "Score",
    "ScoredModel",
    "Weights",
    "calibrate",
    "classes_of",
    "close_batch",
    "distortion",
    "open_session",
    "predict",
    "run_once",
    "run_session",
    "score_outputs",
    "weigh_curves",
]
