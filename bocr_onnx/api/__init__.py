"""The composition root: a module for every command, the same names as the command line."""

from bocr_onnx.api.apply import Applied, apply
from bocr_onnx.api.bench import Benchmark, bench
from bocr_onnx.api.check import check
from bocr_onnx.api.evaluate import Evaluated, evaluate
from bocr_onnx.api.finetune import Finetuned, finetune
from bocr_onnx.api.inspect import inspect
from bocr_onnx.api.mobile import mobile
from bocr_onnx.api.prune import prune, prune_each
from bocr_onnx.api.quantize import Int8Result, quantize
from bocr_onnx.pipeline.inspection import Inspection
from bocr_onnx.pipeline.mobile import Mobile
from bocr_onnx.progress import Progress, Silent
from bocr_onnx.report.verdict import Checked, Criterion

__all__ = [
    "Applied",
    "Benchmark",
    "Checked",
    "Criterion",
    "Evaluated",
    "Finetuned",
    "Inspection",
    "Int8Result",
    "Mobile",
    "Progress",
    "Silent",
    "apply",
    "bench",
    "check",
    "evaluate",
    "finetune",
    "inspect",
    "mobile",
    "prune",
    "prune_each",
    "quantize",
]
