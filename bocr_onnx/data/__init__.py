"""Samples, their preprocessing and their division."""

from bocr_onnx.data.boxes import BOX, NOTHING, are_boxes, fit_boxes, fit_split
from bocr_onnx.data.columns import with_pixels
from bocr_onnx.data.lazy import LazyInputs, in_pieces, joined, part
from bocr_onnx.data.preprocessing import Preprocessing, load_preprocessing, preset_names
from bocr_onnx.data.samples import Inputs, Labels, Pools, Samples, digest
from bocr_onnx.data.sources import Source, open_data
from bocr_onnx.data.split import Part, Split, split

__all__ = [
    "BOX",
    "NOTHING",
    "are_boxes",
    "fit_boxes",
    "fit_split",
    "Inputs",
    "LazyInputs",
    "in_pieces",
    "joined",
    "Labels",
    "Part",
    "Pools",
    "Preprocessing",
    "Samples",
    "Source",
    "Split",
    "digest",
    "load_preprocessing",
    "open_data",
    "part",
    "preset_names",
    "split",
    "with_pixels",
]
