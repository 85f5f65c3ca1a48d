"""One tensor with a row per point of the grids: YOLOv5 to v12 without v10, YOLOX, NanoDet-Plus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bocr_onnx.graph import Array
from bocr_onnx.runtime import Columns
from bocr_onnx.runtime.functions import expit
from bocr_onnx.tasks.detection.boxes import Candidates, Floats, best, from_centres, grid
from bocr_onnx.tasks.detection.layouts.bins import distances
from bocr_onnx.tasks.detection.layouts.seen import Block, Seen, Sides, cells, is_share, to_pixels

N_BINS = 32
"""Columns of NanoDet-Plus that hold a box: eight bins for each of its sides."""

BESIDE_SCORES = ("centres", "sizes", "others")
"""Kinds of columns that count as far as there is something."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A tensor of rows: centre, size, perhaps objectness, then a score per class.

    Attributes:
        name: ``yolov5``, ``yolov8`` (also v9, v11, v12) or ``yolox``.
        tensor: The output.
        axis: Axis of the columns, 1 or 2; axis 0 is the images.
        n_columns: Columns of box and scores; masks or points may follow.
        width: All columns.
        objectness: Whether the fifth column multiplies all classes.
        scale: What x and y are multiplied by to be pixels; None where they are relative to the points of the grids.
        strides: Strides of the grids.
        sides: Height and width of the image.
        logits: Whether scores have not been through a Sigmoid.
    """

    name: str
    tensor: str
    axis: int
    n_columns: int
    width: int
    objectness: bool
    scale: tuple[float, float] | None
    strides: tuple[int, ...]
    sides: Sides
    logits: bool

    @property
    def reads(self) -> tuple[str, ...]:
        """Returns the tensor."""
        return (self.tensor,)

    @property
    def n_classes(self) -> int:
        """Returns the number of scores in a row."""
        return self.n_columns - 4 - self.objectness

    @property
    def preset(self) -> str:
        """Returns that of YOLOX, or of the other YOLOs."""
        return "letterbox-raw" if self.name == "yolox" else "letterbox"

    def blocks(self) -> tuple[Block, ...]:
        """Returns places, sizes and scores, which have other units, and what follows them."""
        parts = {"centres": (0, 2), "sizes": (2, 4), "objectness": (4, 5), "scores": (5, self.n_columns)}
        if not self.objectness:
            parts = {"centres": (0, 2), "sizes": (2, 4), "scores": (4, self.n_columns)}
        if self.width > self.n_columns:
            parts["others"] = (self.n_columns, self.width)
        sure = self.tensor, Columns(self.axis, 4, 5 if self.objectness else self.n_columns)
        return tuple(
            Block(self.tensor, Columns(self.axis, *ends), part, sure if part in BESIDE_SCORES else None)
            for part, ends in parts.items()
        )

    def found(self, *arrays: Array) -> Array:
        """Returns detections; see `Layout`."""
        rows = np.moveaxis(arrays[0], self.axis, 2)[..., : self.n_columns].astype(np.float32)
        scores = expit(rows[..., 4:]) if self.logits else rows[..., 4:]
        if self.objectness:
            scores = scores[..., 1:] * scores[..., :1]
        return best(Candidates(from_centres(self._boxes(rows)), scores))

    def _boxes(self, rows: Floats) -> Floats:
        if self.scale is not None:
            return np.asarray(rows[..., :4] * np.asarray(self.scale * 2, np.float32))
        points = [grid(cells(self.sides, s), 1, 0) for s in self.strides]
        stride = np.repeat(np.asarray(self.strides, np.float32), [len(p) for p in points])[:, None]
        centres = (rows[..., :2] + np.concatenate(points)) * stride
        return np.concatenate([centres, np.exp(np.minimum(rows[..., 2:4], 20)) * stride], axis=-1)


@dataclass(frozen=True, slots=True)
class Binned:
    """A tensor of rows: a score per class, then bins of the four distances from the point to the sides of the box.

    Attributes:
        tensor: The output.
        n_classes: Scores in a row.
        strides: Strides of the grids.
        sides: Height and width of the image.
        name: ``nanodet-plus``.
    """

    tensor: str
    n_classes: int
    strides: tuple[int, ...]
    sides: Sides
    name: str = "nanodet-plus"

    @property
    def reads(self) -> tuple[str, ...]:
        """Returns the tensor."""
        return (self.tensor,)

    @property
    def preset(self) -> str:
        """Returns that of NanoDet."""
        return "letterbox-imagenet"

    def blocks(self) -> tuple[Block, ...]:
        """Returns scores and bins."""
        n = self.n_classes
        scores, bins = Columns(2, 0, n), Columns(2, n, n + N_BINS)
        return Block(self.tensor, scores, "scores"), Block(self.tensor, bins, "bins", (self.tensor, scores))

    def found(self, *arrays: Array) -> Array:
        """Returns detections; see `Layout`."""
        rows = arrays[0].astype(np.float32)
        points = [grid(cells(self.sides, s), s, 0) for s in self.strides]
        stride = np.repeat(np.asarray(self.strides, np.float32), [len(p) for p in points])[:, None]
        boxes = distances(rows[..., self.n_classes :], np.concatenate(points), stride)
        return best(Candidates(boxes, rows[..., : self.n_classes]))


def read_rows(seen: Seen) -> Rows | Binned | None:
    """Returns the layout where one output has a row per point and columns of a box and scores."""
    tensors = [name for name, shape in seen.shapes.items() if len(shape) == 2]
    if len(tensors) != 1:
        return None
    (tensor,) = tensors
    for axis, (n, k) in ((2, seen.shapes[tensor]), (1, seen.shapes[tensor][::-1])):
        grids = seen.grids(n)
        if grids is not None and k >= 5 and n > k:
            return _rows(seen, tensor, axis, k, *grids)
    return None


def _rows(seen: Seen, tensor: str, axis: int, k: int, strides: tuple[int, ...], per_cell: int) -> Rows | Binned:
    values = np.moveaxis(seen.values[tensor], axis, 2)
    if k > N_BINS and per_cell == 1 and is_share(values[..., :-N_BINS]) and not is_share(values[..., -N_BINS:]):
        return Binned(tensor, k - N_BINS, strides, seen.sides)
    named = len(seen.class_names)
    objectness = per_cell == 3 or (axis == 2 and k > 5 and named != k - 4)
    fits = 0 < named <= k - 4 - objectness
    n_columns = 4 + objectness + named if fits else k - _n_masks(seen, k)
    name = "yolov5" if per_cell == 3 else "yolox" if objectness else "yolov8"
    logits = not is_share(values[..., 4:n_columns])
    scale = _scale(seen, values, strides, per_cell)
    return Rows(name, tensor, axis, n_columns, k, objectness, scale, strides, seen.sides, logits)


def _n_masks(seen: Seen, k: int) -> int:
    """Returns the number of columns that weigh the masks of another output, `(n, H, W)`."""
    found = [s[0] for s in seen.shapes.values() if len(s) == 3 and s[0] < k - 4 and s[1] * 4 == seen.sides[0]]
    return found[0] if len(found) == 1 else 0


def _follow(values: Array, x: Array) -> bool:
    """Returns whether values grow with the places of their points."""
    return bool(values.std() > 0) and float(np.corrcoef(values, x)[0, 1]) > 0.8


def _scale(seen: Seen, values: Array, strides: tuple[int, ...], per_cell: int) -> tuple[float, float] | None:
    if np.abs(values[..., :2]).max() > 16:
        return 1.0, 1.0
    x = np.concatenate([grid(cells(seen.sides, s), s, 0.5, 1)[:, 0] for s in strides])
    if per_cell == 1 and not _follow(values[0, :, 0], x):
        return None
    return to_pixels(values[..., :2], seen.sides)
