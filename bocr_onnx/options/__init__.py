"""What people ask for: one checked record per command, read by the command line, by Python and by the docs."""

from bocr_onnx.options.check import CheckOptions
from bocr_onnx.options.commands import (
    MAX_BUDGETS,
    MOST_SHARE,
    AddOptions,
    ApplyOptions,
    BenchOptions,
    DeviceOptions,
    EvaluateOptions,
    FinetuneOptions,
    ImageOptions,
    InspectOptions,
    PruneOptions,
    Recovery,
    TaskOptions,
)
from bocr_onnx.options.mobile import MobileOptions
from bocr_onnx.options.parse import OWN_TASK, TASK_NAMES, parse_shapes
from bocr_onnx.options.quantize import QuantizeOptions
from bocr_onnx.options.record import RENAMED, Flag, Option, keywords, options_of, part, record, stored
from bocr_onnx.options.report import ReportOptions
from bocr_onnx.options.strategies import StrategyOptions
from bocr_onnx.options.training import FinetuneSettings
from bocr_onnx.options.types import PANELS

COMMANDS = (
    InspectOptions,
    PruneOptions,
    FinetuneOptions,
    ApplyOptions,
    EvaluateOptions,
    BenchOptions,
    CheckOptions,
    QuantizeOptions,
    MobileOptions,
)
"""The records of all commands."""

__all__ = [
    "COMMANDS",
    "OWN_TASK",
    "TASK_NAMES",
    "PANELS",
    "RENAMED",
    "AddOptions",
    "ApplyOptions",
    "BenchOptions",
    "CheckOptions",
    "DeviceOptions",
    "EvaluateOptions",
    "FinetuneOptions",
    "FinetuneSettings",
    "MAX_BUDGETS",
    "MOST_SHARE",
    "ImageOptions",
    "Flag",
    "InspectOptions",
    "MobileOptions",
    "Option",
    "PruneOptions",
    "QuantizeOptions",
    "TaskOptions",
    "Recovery",
    "ReportOptions",
    "StrategyOptions",
    "keywords",
    "options_of",
    "parse_shapes",
    "part",
    "record",
    "stored",
]
