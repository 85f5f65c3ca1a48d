"""From a slim model to what a device takes: int8."""

from bocr_onnx.deploy.int8 import (
    Activations,
    Feeds,
    Int8,
    costly,
    float_kernels,
    prepared,
    quantize,
    tail_of,
    with_neighbours,
)

__all__ = [
    "Activations",
    "Feeds",
    "Int8",
    "costly",
    "float_kernels",
    "with_neighbours",
    "prepared",
    "quantize",
    "tail_of",
]
