"""One rule per operator family; importing this package registers them all."""

from bocr_onnx.groups.rules import (
    attention,
    conv,
    elementwise,
    joining,
    layout,
    normalization,
    pooling,
    product,
    quantization,
    recurrent,
    reduction,
    refusals,
    shape,
    sizing,
    window,
)
from bocr_onnx.groups.rules.registry import find_arithmetic, find_rule, known_operators

__all__ = [
    "attention",
    "conv",
    "elementwise",
    "find_arithmetic",
    "find_rule",
    "joining",
    "known_operators",
    "layout",
    "normalization",
    "pooling",
    "product",
    "quantization",
    "recurrent",
    "reduction",
    "refusals",
    "shape",
    "sizing",
    "window",
]
