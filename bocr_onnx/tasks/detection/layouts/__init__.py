"""How boxes are read from the outputs of detectors: a layout is a module of this package and a row of `LAYOUTS`."""

from __future__ import annotations

from collections.abc import Callable

from bocr_onnx.tasks.detection.layouts.finished import read_finished
from bocr_onnx.tasks.detection.layouts.levels import read_levels
from bocr_onnx.tasks.detection.layouts.maps import read_fastestdet, read_map, read_yolo_fastest
from bocr_onnx.tasks.detection.layouts.pairs import read_pair, read_queries, read_suppression
from bocr_onnx.tasks.detection.layouts.rows import read_rows
from bocr_onnx.tasks.detection.layouts.seen import Block, Layout, Seen, class_names

LAYOUTS: dict[str, Callable[[Seen], Layout | None]] = {
    "end2end": read_finished,
    "nms": read_suppression,
    "yolo-fastest": read_yolo_fastest,
    "fastestdet": read_fastestdet,
    "yolo": read_rows,
    "levels": read_levels,
    "pair": read_pair,
    "queries": read_queries,
    "map": read_map,
}
"""What recognises a layout, by its name, in the order in which they are tried."""

ASKED_FOR = ("map",)
"""Layouts that are taken only where they are named."""

__all__ = ["ASKED_FOR", "LAYOUTS", "Block", "Layout", "Seen", "class_names"]
