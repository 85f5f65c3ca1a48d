"""inspect, prune, finetune, apply, evaluate: the composition root, the same names as the command line."""

from bocr_onnx.api.apply import Applied, apply
from bocr_onnx.api.evaluate import Evaluated, evaluate
from bocr_onnx.api.finetune import Finetuned, finetune
from bocr_onnx.api.inspection import Inspection, inspect
from bocr_onnx.api.prune import prune, prune_each

__all__ = [
    "Applied",
    "Evaluated",
    "Finetuned",
    "Inspection",
    "apply",
    "evaluate",
    "finetune",
    "inspect",
    "prune",
    "prune_each",
]
