"""One function per operator; importing this package registers them all."""

from bocr_onnx.training.operators import (
    conv,
    elementwise,
    layout,
    linear,
    normalization,
    pooling,
    reduction,
    resize,
    retired,
    shape,
)
from bocr_onnx.training.operators.registry import Context, Operator, find_operator, known_operators

__all__ = [
    "Context",
    "Operator",
    "conv",
    "elementwise",
    "find_operator",
    "known_operators",
    "layout",
    "linear",
    "normalization",
    "pooling",
    "reduction",
    "resize",
    "retired",
    "shape",
]
