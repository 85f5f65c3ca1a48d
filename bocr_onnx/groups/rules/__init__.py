"""One rule per operator family; importing this package registers them all."""

from bocr_onnx.groups.rules import (
    conv,
    elementwise,
    layout,
    matmul,
    normalization,
    pooling,
    reduction,
    shape,
    window,
)
from bocr_onnx.groups.rules.registry import find_rule, known_operators

__all__ = [
    "conv",
    "elementwise",
    "find_rule",
    "known_operators",
    "layout",
    "matmul",
    "normalization",
    "pooling",
    "reduction",
    "shape",
    "window",
]
