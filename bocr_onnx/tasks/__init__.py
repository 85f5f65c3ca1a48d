"""What a model is for: which tensors are measured, what their truth is, and what a score means."""

from bocr_onnx.tasks.classification import Classification, chance
from bocr_onnx.tasks.detection import Detection, class_names
from bocr_onnx.tasks.drawing import drawn, is_drawn
from bocr_onnx.tasks.infer import TASKS, described, find_task, measured
from bocr_onnx.tasks.own import Own, is_own, own_pools
from bocr_onnx.tasks.score import (
    Score,
    classes_of,
    compared,
    distortion,
    fidelity,
    score_outputs,
    total_distortion,
)
from bocr_onnx.tasks.task import Task

__all__ = [
    "TASKS",
    "Classification",
    "Own",
    "Score",
    "Task",
    "Detection",
    "chance",
    "class_names",
    "classes_of",
    "compared",
    "described",
    "distortion",
    "drawn",
    "fidelity",
    "find_task",
    "is_drawn",
    "is_own",
    "measured",
    "own_pools",
    "score_outputs",
    "total_distortion",
]
