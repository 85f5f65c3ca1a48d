"""The composition root: a module for every command, the same names as the command line."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bocr_onnx.api.apply import Applied, apply
    from bocr_onnx.api.bench import Benchmark, bench
    from bocr_onnx.api.check import check
    from bocr_onnx.api.evaluate import Evaluated, evaluate
    from bocr_onnx.api.finetune import Finetuned, finetune
    from bocr_onnx.api.inspect import inspect
    from bocr_onnx.api.mobile import mobile
    from bocr_onnx.api.prune import prune, prune_each
    from bocr_onnx.api.pytorch import to_onnx, to_torch
    from bocr_onnx.api.quantize import Int8Result, quantize
    from bocr_onnx.api.report import write_report
    from bocr_onnx.pipeline.inspection import Inspection
    from bocr_onnx.pipeline.mobile import Mobile
    from bocr_onnx.progress import Progress, Silent
    from bocr_onnx.report.verdict import Checked, Criterion
    from bocr_onnx.terminal import TerminalProgress

_PLACES = {
    "Applied": "bocr_onnx.api.apply",
    "apply": "bocr_onnx.api.apply",
    "bench": "bocr_onnx.api.bench",
    "Benchmark": "bocr_onnx.api.bench",
    "check": "bocr_onnx.api.check",
    "Checked": "bocr_onnx.report.verdict",
    "Criterion": "bocr_onnx.report.verdict",
    "evaluate": "bocr_onnx.api.evaluate",
    "Evaluated": "bocr_onnx.api.evaluate",
    "finetune": "bocr_onnx.api.finetune",
    "Finetuned": "bocr_onnx.api.finetune",
    "inspect": "bocr_onnx.api.inspect",
    "Inspection": "bocr_onnx.pipeline.inspection",
    "Int8Result": "bocr_onnx.api.quantize",
    "Mobile": "bocr_onnx.pipeline.mobile",
    "mobile": "bocr_onnx.api.mobile",
    "Progress": "bocr_onnx.progress",
    "prune": "bocr_onnx.api.prune",
    "prune_each": "bocr_onnx.api.prune",
    "quantize": "bocr_onnx.api.quantize",
    "to_onnx": "bocr_onnx.api.pytorch",
    "to_torch": "bocr_onnx.api.pytorch",
    "write_report": "bocr_onnx.api.report",
    "Silent": "bocr_onnx.progress",
    "TerminalProgress": "bocr_onnx.terminal",
}
"""Where each name lies: a command loads what it needs and no more."""

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
    "TerminalProgress",
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
    "to_onnx",
    "to_torch",
    "write_report",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Loads a name on first use; afterwards a command is the function, not the module of the same name."""
    if name not in _PLACES:
        raise AttributeError(f"module 'bocr_onnx.api' has no attribute {name!r}")
    globals()[name] = getattr(import_module(_PLACES[name]), name)
    return globals()[name]
