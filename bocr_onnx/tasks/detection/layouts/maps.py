"""Maps: FastestDet, Yolo-FastestV2, and the probability of text at every pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bocr_onnx.data import BOX
from bocr_onnx.graph import Array
from bocr_onnx.runtime import Columns
from bocr_onnx.runtime.functions import expit
from bocr_onnx.tasks.detection.boxes import MAX_BOXES, Candidates, best, blank, from_centres, grid
from bocr_onnx.tasks.detection.layouts.seen import Block, Seen, Sides, cells, is_share

ANCHORS = (12.64, 19.39, 37.88, 51.48, 55.71, 138.31, 126.91, 78.23, 131.57, 214.55, 279.92, 258.87)
"""Widths and heights in pixels of the boxes that Yolo-FastestV2 was trained with, three for each grid."""


@dataclass(frozen=True, slots=True)
class OneTensor:
    """A layout of one tensor whose photos are BGR from 0 to 1.

    Attributes:
        tensor: The output.
        n_classes: Number of classes.
        sides: Height and width of the image.
    """

    tensor: str
    n_classes: int
    sides: Sides

    @property
    def reads(self) -> tuple[str, ...]:
        """Returns the output."""
        return (self.tensor,)

    @property
    def preset(self) -> str:
        """Returns BGR from 0 to 1."""
        return "letterbox-bgr"


@dataclass(frozen=True, slots=True)
class FastestDet(OneTensor):
    """One map `(N, 5 + C, H, W)`: objectness, box, and a Softmax of classes."""

    name: str = "fastestdet"

    def blocks(self) -> tuple[Block, ...]:
        """Returns objectness, boxes and scores."""
        sure, boxes, scores = Columns(1, 0, 1), Columns(1, 1, 5), Columns(1, 5, 5 + self.n_classes)
        return (
            Block(self.tensor, sure, "objectness"),
            Block(self.tensor, boxes, "boxes", (self.tensor, sure)),
            Block(self.tensor, scores, "scores"),
        )

    def found(self, *arrays: Array) -> Array:
        """Returns detections; see `Layout`."""
        n, k, height, width = arrays[0].shape
        rows = arrays[0].reshape(n, k, -1).transpose(0, 2, 1).astype(np.float32)
        scale = np.asarray((self.sides[1], self.sides[0]), np.float32)
        cell = np.asarray((width, height), np.float32)
        centres = (grid((height, width), 1, 0) + np.tanh(rows[..., 1:3])) / cell * scale
        boxes = from_centres(np.concatenate([centres, expit(rows[..., 3:5]) * scale], axis=-1))
        return best(Candidates(boxes, np.clip(rows[..., :1], 0, 1) * np.clip(rows[..., 5:], 0, 1)))


@dataclass(frozen=True, slots=True)
class YoloFastest(OneTensor):
    """Rows of cells, `(N, A, 12 + 3 + C)`: three boxes, three objectnesses, classes."""

    name: str = "yolo-fastest"

    def blocks(self) -> tuple[Block, ...]:
        """Returns boxes, objectness and scores."""
        boxes, sure, scores = Columns(2, 0, 12), Columns(2, 12, 15), Columns(2, 15, 15 + self.n_classes)
        return (
            Block(self.tensor, boxes, "boxes", (self.tensor, sure)),
            Block(self.tensor, sure, "objectness"),
            Block(self.tensor, scores, "scores"),
        )

    def found(self, *arrays: Array) -> Array:
        """Returns detections; see `Layout`."""
        rows = arrays[0].astype(np.float32)
        n = len(rows)
        points = [grid(cells(self.sides, s), 1, 0) for s in (16, 32)]
        lengths = [len(p) for p in points]
        stride = np.repeat(np.asarray((16, 32), np.float32), lengths)[:, None, None]
        anchors = np.repeat(np.asarray(ANCHORS, np.float32).reshape(2, 3, 2), lengths, axis=0)
        boxes = rows[..., :12].reshape(n, -1, 3, 4)
        centres = (2 * boxes[..., :2] - 0.5 + np.concatenate(points)[:, None]) * stride
        sizes = (2 * boxes[..., 2:]) ** 2 * anchors
        corners = from_centres(np.concatenate([centres, sizes], axis=-1)).reshape(n, -1, 4)
        scores = (rows[..., 12:15, None] * rows[..., None, 15:]).reshape(n, -1, self.n_classes)
        return best(Candidates(corners, scores))


@dataclass(frozen=True, slots=True)
class TextMap:
    """The probability of text at every pixel: each connected region is a box.

    Attributes:
        tensor: The output, `(N, 1, H, W)`; of several channels the first is read.
        n_channels: Its channels.
        sides: Height and width of the image.
        name: ``map``.
    """

    tensor: str
    n_channels: int
    sides: Sides
    name: str = "map"

    @property
    def reads(self) -> tuple[str, ...]:
        """Returns the map."""
        return (self.tensor,)

    @property
    def n_classes(self) -> int:
        """Returns 1: text."""
        return 1

    @property
    def preset(self) -> str:
        """Returns that of PaddleOCR."""
        return "letterbox-imagenet"

    def blocks(self) -> tuple[Block, ...]:
        """Returns the map."""
        return (Block(self.tensor, Columns(1, 0, self.n_channels)),)

    def found(self, *arrays: Array) -> Array:
        """Returns detections; see `Layout`."""
        found = blank(len(arrays[0]))
        for row, image in zip(found, arrays[0][:, 0].astype(np.float32), strict=True):
            regions = _regions(image, self.sides)
            row[: len(regions)] = regions
        return found


def _regions(image: Array, sides: Sides, threshold: float = 0.3, least: int = 9) -> Array:
    """Returns a box for each connected region above a threshold, its score the mean probability, the best first."""
    scale = sides[1] / image.shape[1], sides[0] / image.shape[0]
    from scipy import ndimage  # the light install, which has none, reads no maps

    marked, n = ndimage.label(image > threshold)
    sizes = np.bincount(marked.ravel(), minlength=n + 1)[1:]
    places = ndimage.find_objects(marked)
    kept = [i for i in range(n) if sizes[i] >= least]
    means = ndimage.mean(image, marked, [i + 1 for i in kept])
    found = np.zeros(len(kept), BOX)
    for row, i, mean in zip(found, kept, means, strict=True):
        y, x = places[i]
        row["box"] = x.start * scale[0], y.start * scale[1], x.stop * scale[0], y.stop * scale[1]
        row["score"] = mean
    return found[np.argsort(-found["score"], kind="stable")][:MAX_BOXES]


def read_fastestdet(seen: Seen) -> FastestDet | None:
    """Returns the layout of FastestDet: the classes of a cell sum to 1."""
    for name, shape in seen.shapes.items():
        if len(shape) == 3 and shape[0] > 6 and shape[1:] != seen.sides:
            values = seen.values[name]
            if is_share(values[:, 0]) and np.allclose(values[:, 5:].sum(axis=1), 1, atol=1e-3):
                return FastestDet(name, shape[0] - 5, seen.sides)
    return None


def read_yolo_fastest(seen: Seen) -> YoloFastest | None:
    """Returns the layout of Yolo-FastestV2: the classes of a cell sum to 1."""
    n = sum(int(np.prod(cells(seen.sides, s))) for s in (16, 32))
    for name, shape in seen.shapes.items():
        if len(shape) == 2 and shape[0] == n and shape[1] > 16:
            values = seen.values[name]
            if is_share(values) and np.allclose(values[..., 15:].sum(axis=-1), 1, atol=1e-3):
                return YoloFastest(name, shape[1] - 15, seen.sides)
    return None


def read_map(seen: Seen) -> TextMap | None:
    """Returns the layout of text detectors, only where it is asked for: a segmenter looks the same."""
    for name, shape in seen.shapes.items():
        if len(shape) == 3 and shape[0] <= 3 and is_share(seen.values[name]):
            return TextMap(name, shape[0], seen.sides)
    return None
