"""inspect, prune, finetune, apply, evaluate, bench: the composition root, the same names as the command line."""

from bocr_onnx.api.apply import Applied, apply
from bocr_onnx.api.bench import Benchmark, bench
from bocr_onnx.api.evaluate import Evaluated, evaluate
from bocr_onnx.api.finetune import Finetuned, finetune
from bocr_onnx.api.inspect import inspect
from bocr_onnx.api.prune import prune, prune_each
from bocr_onnx.pipeline.inspection import Inspection
from bocr_onnx.progress import Progress, Silent

__all__ = [
    "Applied",
    "Benchmark",
    "Evaluated",
    "Finetuned",
    "Inspection",
    "Progress",
    "Silent",
    "apply",
    "bench",
    "evaluate",
    "finetune",
    "inspect",
    "prune",
    "prune_each",
]
