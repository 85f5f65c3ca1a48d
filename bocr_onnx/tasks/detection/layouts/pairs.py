"""A tensor of boxes and one of scores: SSD and UltraFace, DETR and RT-DETR, and what enters NonMaxSuppression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from bocr_onnx.graph import Array
from bocr_onnx.runtime import Columns
from bocr_onnx.runtime.functions import expit, softmax
from bocr_onnx.tasks.detection.boxes import Candidates, Floats, best, from_centres
from bocr_onnx.tasks.detection.layouts.seen import Block, Seen, are_corners, is_share, to_pixels

Form = Literal["corners", "centres", "flipped"]
"""Boxes as corners x and y, as centre and size, or as two corners y and x in any order."""
Activation = Literal["", "sigmoid", "softmax"]
"""What turns scores into probabilities."""

MAX_QUERIES = 1000
QUERIES = (100, 200, 300, 500, 900, 1000)
"""Numbers of queries that transformers for detection have."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Boxes and scores.

    Attributes:
        name: ``ssd``, ``detr`` or ``nms``.
        boxes: Tensor `(N, A, 4)`; or `(N, A, 4 + C)` where the scores follow in the same rows.
        scores: Tensor `(N, A, C)`, or `(N, C, A)` for ``nms``; the same as `boxes` where they share rows.
        widths: Columns of both.
        form: What the four numbers are.
        scale: What x and y are multiplied by to be pixels.
        activation: What is applied to the scores.
        background: Column that stands for nothing, or None.
    """

    name: str
    boxes: str
    scores: str
    widths: tuple[int, int]
    form: Form
    scale: tuple[float, float]
    activation: Activation = ""
    background: int | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """Returns both tensors, one where they are the same."""
        return tuple(dict.fromkeys((self.boxes, self.scores)))

    @property
    def n_classes(self) -> int:
        """Returns the number of scores that stand for something."""
        n = self.widths[1] - (4 if self.boxes == self.scores else 0)
        return n - (self.background is not None)

    @property
    def preset(self) -> str:
        """Returns that of SSD, or of transformers."""
        return "letterbox-signed" if self.name == "ssd" else "letterbox"

    def blocks(self) -> tuple[Block, ...]:
        """Returns boxes and scores."""
        boxes = Columns(2, 0, 4)
        if self.boxes == self.scores:
            scores = Columns(2, 4, self.widths[1])
            return Block(self.boxes, boxes, "boxes", (self.boxes, scores)), Block(self.boxes, scores, "scores")
        scores = Columns(1 if self.name == "nms" else 2, 0, self.widths[1])
        first = scores._replace(start=int(self.background == 0))
        return Block(self.boxes, boxes, sure=(self.scores, first)), Block(self.scores, scores)

    def found(self, *arrays: Array) -> Array:
        """Returns detections; see `Layout`."""
        boxes, scores = arrays[0].astype(np.float32), arrays[-1].astype(np.float32)
        if self.boxes == self.scores:
            scores = scores[..., 4:]
        if self.name == "nms":
            scores = np.moveaxis(scores, 1, 2)
        scores = expit(scores) if self.activation == "sigmoid" else scores
        scores = softmax(scores, axis=-1) if self.activation == "softmax" else scores
        if self.background is not None:
            scores = np.delete(scores, self.background, axis=-1)
        return best(Candidates(self._corners(boxes[..., :4]), scores))

    def _corners(self, boxes: Floats) -> Floats:
        if self.form == "flipped":
            y, x = (np.sort(boxes[..., axes], axis=-1) for axes in ([0, 2], [1, 3]))
            boxes = np.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], axis=-1)
        elif self.form == "centres":
            boxes = from_centres(boxes)
        return np.asarray(boxes * np.asarray(self.scale * 2, np.float32))


def read_pair(seen: Seen) -> Pair | None:
    """Returns the layout where one output holds finished boxes and another one their scores."""
    four = [name for name, shape in seen.shapes.items() if len(shape) == 2 and shape[1] == 4]
    boxes = [name for name in four if not _sums_to_one(seen.values[name])]
    for name in boxes:
        others = [s for s, shape in seen.shapes.items() if len(shape) == 2 and shape[0] == seen.shapes[name][0]]
        scores = [s for s in others if s not in boxes and (seen.shapes[s][1] < 4 or _are_scores(seen, s))]
        if len(scores) == 1:
            return _pair(seen, name, scores[0])
    return None


def _are_scores(seen: Seen, name: str) -> bool:
    """Returns whether a tensor may hold scores; landmarks, ten numbers of a face, are none."""
    return is_share(seen.values[name]) or seen.shapes[name][1] > 10


def _sums_to_one(values: Array) -> bool:
    return is_share(values) and bool(np.allclose(values.sum(axis=-1), 1, atol=1e-3))


def _pair(seen: Seen, boxes: str, scores: str) -> Pair | None:
    known, rated = seen.values[boxes], seen.values[scores]
    widths, scale = (4, seen.shapes[scores][1]), to_pixels(known, seen.sides)
    sums_to_one = _sums_to_one(rated)
    if are_corners(known):
        activation: Activation = "" if is_share(rated) else "sigmoid"
        return Pair("ssd", boxes, scores, widths, "corners", scale, activation, 0 if sums_to_one else None)
    if is_share(known) and seen.shapes[boxes][0] <= MAX_QUERIES:
        last = widths[1] - 1 if widths[1] == 92 or sums_to_one else None  # DETR's last class means no object
        activation = "" if is_share(rated) else "sigmoid" if last is None else "softmax"
        return Pair("detr", boxes, scores, widths, "centres", scale, activation, last)
    return None


def read_queries(seen: Seen) -> Pair | None:
    """Returns the layout of RT-DETR as Ultralytics exports it: a row per query, its box and a score per class."""
    for name, shape in seen.shapes.items():
        if len(shape) == 2 and shape[1] >= 5 and shape[0] in QUERIES:
            values = seen.values[name]
            if is_share(values[..., :4]) and is_share(values[..., 4:]):
                return Pair("detr", name, name, (4, shape[1]), "centres", (float(seen.sides[1]), float(seen.sides[0])))
    return None


def read_suppression(seen: Seen) -> Pair | None:
    """Returns boxes and scores that enter the first NonMaxSuppression of a graph."""
    node = next((node for node in seen.graph.nodes if node.op == "NonMaxSuppression"), None)
    if node is None or any(name not in seen.graph.shapes for name in node.inputs[:2]):
        return None
    boxes, scores = node.inputs[:2]
    if seen.graph.shapes[boxes][0] != seen.graph.batch:
        return None
    form: Form = "centres" if node.attributes.get("center_point_box", 0) else "flipped"
    known = seen.run((boxes,))[boxes]
    return Pair("nms", boxes, scores, (4, seen.graph.shapes[scores][1]), form, to_pixels(known, seen.sides))
