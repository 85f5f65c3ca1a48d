"""From a slim model to what a device takes: int8, and the files of phones."""

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
from bocr_onnx.deploy.mobile import NNAPI_NOTE, Partitions, Platform, partitions_of, with_shapes, write_ort

__all__ = [
    "NNAPI_NOTE",
    "Activations",
    "Feeds",
    "Int8",
    "Partitions",
    "Platform",
    "costly",
    "float_kernels",
    "partitions_of",
    "prepared",
    "quantize",
    "tail_of",
    "with_neighbours",
    "with_shapes",
    "write_ort",
]
