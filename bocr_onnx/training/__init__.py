"""An ONNX graph becomes a torch module, is finetuned, and its weights go back into the same graph."""

from bocr_onnx.training.augment import augment
from bocr_onnx.training.blockwise import check_reconstructs, find_segments, reconstruct
from bocr_onnx.training.finetune import check_interfaces, finetune
from bocr_onnx.training.interpreter import OnnxModule, check_agreement, export
from bocr_onnx.training.learner import check_trains, start_engine
from bocr_onnx.training.operators import known_operators
from bocr_onnx.training.records import EpochReport, FinetuneResult, Hooks, StepReport
from bocr_onnx.training.targets import Goal, make_targets, target_tensors
from bocr_onnx.training.watch import learnt

__all__ = [
    "EpochReport",
    "FinetuneResult",
    "Goal",
    "learnt",
    "make_targets",
    "target_tensors",
    "Hooks",
    "OnnxModule",
    "StepReport",
    "augment",
    "check_agreement",
    "check_interfaces",
    "check_reconstructs",
    "check_trains",
    "export",
    "finetune",
    "find_segments",
    "known_operators",
    "reconstruct",
    "start_engine",
]
