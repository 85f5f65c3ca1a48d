"""What a cut loses is recovered in closed form, and a recovered model is scored."""

from bocr_onnx.recovery.calibration import Calibration, Weights, calibrate, weigh_curves
from bocr_onnx.recovery.patches import Affine, find_affines, inner_channels, to_matrix
from bocr_onnx.recovery.scorer import PolicyScorer, ScoredModel
from bocr_onnx.recovery.sequential import peak_bytes

__all__ = [
    "Affine",
    "Calibration",
    "PolicyScorer",
    "ScoredModel",
    "Weights",
    "calibrate",
    "find_affines",
    "inner_channels",
    "peak_bytes",
    "to_matrix",
    "weigh_curves",
]
