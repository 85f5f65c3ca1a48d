"""Detections that the graph has already chosen: YOLOv10, exports with NonMaxSuppression, TensorFlow's SSD."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from bocr_onnx.data import BOX
from bocr_onnx.graph import FLOATING, Array, ModelGraph
from bocr_onnx.runtime import Columns
from bocr_onnx.tasks.detection.boxes import MAX_BOXES, MIN_SCORE, Floats, blank
from bocr_onnx.tasks.detection.layouts.seen import Block, Seen, to_pixels

MAX_ROWS = 1000
CHOOSE = ("TopK", "NonMaxSuppression", "NonZero", "ArgMax")
NOT_COMPARED = ("Shape", "Size")


@dataclass(frozen=True, slots=True)
class Finished:
    """Rows of chosen boxes.

    Attributes:
        tensors: One, `(N, K, 6)`: corners, score and class; or three: boxes, scores and classes.
        scale: What x and y are multiplied by to be pixels.
        compared: Tensors before the choice, with the number of places along axis 1: what the original is compared by.
        flipped: Whether boxes are y and x, as TensorFlow has them.
        name: ``end2end``.
    """

    tensors: tuple[str, ...]
    scale: tuple[float, float]
    compared: tuple[tuple[str, int], ...]
    flipped: bool = False
    name: str = "end2end"

    @property
    def reads(self) -> tuple[str, ...]:
        """Returns the tensors of detections."""
        return self.tensors

    @property
    def n_classes(self) -> None:
        """Returns None: only detections tell their class."""
        return

    @property
    def preset(self) -> str:
        """Returns that of YOLOv10."""
        return "letterbox"

    def blocks(self) -> tuple[Block, ...]:
        """Returns the tensors before the choice, since rows that only change places are not different."""
        return tuple(Block(name, Columns(1, 0, n)) for name, n in self.compared)

    def found(self, *arrays: Array) -> Array:
        """Returns detections; see `Layout`."""
        rows = _joined(arrays)
        order = np.argsort(-rows[..., 4], axis=1, kind="stable")[:, :MAX_BOXES]
        rows = np.take_along_axis(rows, order[..., None], axis=1)
        boxes = rows[..., [1, 0, 3, 2]] if self.flipped else rows[..., :4]
        found = blank(len(rows))
        kept = np.zeros(rows.shape[:2], BOX)
        kept["box"] = boxes * np.asarray(self.scale * 2, np.float32)
        kept["score"], kept["label"] = rows[..., 4], rows[..., 5].astype(np.int32)
        kept["label"][rows[..., 4] <= MIN_SCORE] = -1
        found[:, : rows.shape[1]] = kept
        return found


def _joined(arrays: tuple[Array, ...]) -> Floats:
    """Returns rows `(N, K, 6)`."""
    n, k = arrays[0].shape[:2]
    return np.concatenate([array.reshape(n, k, -1).astype(np.float32) for array in arrays], axis=-1)


def read_finished(seen: Seen) -> Finished | None:
    """Returns the layout where the graph chooses detections: corners, score and class in one output or in three."""
    chosen = _after_choice(seen.graph)
    for name, shape in seen.shapes.items():
        may_be = name in chosen or seen.grids(shape[0]) is None
        if len(shape) == 2 and shape[1] == 6 and shape[0] <= MAX_ROWS and may_be:
            values = seen.values[name]
            if np.array_equal(values[..., 5], np.round(values[..., 5])):
                return Finished((name,), to_pixels(values[..., :4], seen.sides), before_choice(seen.graph, (name,)))
    return _three(seen)


def _three(seen: Seen) -> Finished | None:
    boxes = [name for name, shape in seen.shapes.items() if len(shape) == 2 and shape[1] == 4]
    for name in boxes:
        beside = [n for n, shape in seen.shapes.items() if shape == seen.shapes[name][:1]]
        scores = [n for n in beside if re.search(r"score|conf", n.lower())]
        labels = [n for n in beside if re.search(r"class|label", n.lower())]
        if len(scores) == len(labels) == 1:
            tensors = (name, scores[0], labels[0])
            scale = to_pixels(seen.values[name], seen.sides)
            flipped = name.lower().startswith("detection_boxes")
            return Finished(tensors, scale, before_choice(seen.graph, tensors), flipped)
    return None


def before_choice(graph: ModelGraph, names: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    """Returns the floating-point tensors from which choices on the way to outputs are made, and what is chosen from.

    Each with its size along axis 1; empty where nothing is chosen.
    """
    after = _after_choice(graph)
    waiting, seen, found = list(names), set(names), list[tuple[str, int]]()
    while waiting:
        name = waiting.pop(0)
        node = graph.maker(name)
        if name not in after:
            shape = graph.shapes.get(name, ())
            inner = shape[1:] if shape[:1] == (graph.batch,) else shape
            if _is_computed(graph, name) and len(inner) > 1 and min(inner) > 0:
                found.append((name, inner[0]))
            continue
        inputs = [n for n in (node.inputs if node is not None else ()) if n and n not in seen]
        seen.update(inputs)
        waiting += inputs
    return tuple(found)


def _is_computed(graph: ModelGraph, name: str) -> bool:
    return graph.dtypes.get(name, TensorProto.UNDEFINED) in FLOATING and name not in (*graph.inputs, *graph.constants)


def _after_choice(graph: ModelGraph) -> set[str]:
    after: set[str] = set()
    for node in graph.nodes:
        if node.op in CHOOSE or (node.op not in NOT_COMPARED and any(name in after for name in node.inputs)):
            after.update(node.outputs)
    return after
