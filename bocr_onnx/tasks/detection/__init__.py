"""Detectors: how boxes are read from outputs, which overlap, and how well they are found."""

from bocr_onnx.tasks.detection.layouts import LAYOUTS, class_names
from bocr_onnx.tasks.detection.task import CONFIDENT, Detection, find_layout, make_detection

__all__ = ["CONFIDENT", "LAYOUTS", "Detection", "class_names", "find_layout", "make_detection"]
