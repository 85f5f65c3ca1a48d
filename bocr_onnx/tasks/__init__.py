"""What a score means: top-1 with labels, agreement with the original without, distortion of any output."""

from bocr_onnx.tasks.score import Score, classes_of, distortion, score_outputs

__all__ = ["Score", "classes_of", "distortion", "score_outputs"]
