"""inspect, prune, finetune, apply, evaluate: the composition root, the same names as the command line."""

from bocr_onnx.api.apply import Applied, Evaluated, apply, evaluate
from bocr_onnx.api.finetune import Finetuned, FinetuneOptions, finetune, train_model
from bocr_onnx.api.inspection import Inspection, inspect
from bocr_onnx.api.options import Options
from bocr_onnx.api.progress import Progress, Silent
from bocr_onnx.api.prune import build_options, prune, prune_each
from bocr_onnx.api.rundir import default_output, default_run_dir, is_resumable
from bocr_onnx.api.shapes import parse_shapes
from bocr_onnx.search import Settings

__all__ = [
    "Applied",
    "Evaluated",
    "FinetuneOptions",
    "Finetuned",
    "Inspection",
    "Options",
    "Progress",
    "Settings",
    "Silent",
    "apply",
    "build_options",
    "default_output",
    "default_run_dir",
    "evaluate",
    "finetune",
    "inspect",
    "is_resumable",
    "parse_shapes",
    "prune",
    "prune_each",
    "train_model",
]
