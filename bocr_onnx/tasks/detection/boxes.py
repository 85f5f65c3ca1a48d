"""Boxes that a detector finds: their forms, and the best of many that overlap; in pixels of the model's input."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bocr_onnx.data import BOX, NOTHING
from bocr_onnx.graph import Array

MAX_BOXES = 100
"""Boxes of an image that are kept, as COCO counts them."""

MAX_CANDIDATES = 400
"""Boxes of an image among which overlaps are looked for, the best first."""

MIN_SCORE = 0.01
IOU = 0.6
"""Overlap from which two boxes of a class are one object."""

Floats = npt.NDArray[np.float32]


class Candidates(NamedTuple):
    """What a detector says before overlaps are taken out: `(N, A, 4)` boxes and `(N, A, n_classes)` scores."""

    boxes: Floats
    scores: Floats


def from_centres(boxes: Array) -> Floats:
    """Returns corners of boxes ``x, y, width, height`` around their centres, `(..., 4)`."""
    centre, half = boxes[..., :2], boxes[..., 2:4] / 2
    return np.concatenate([centre - half, centre + half], axis=-1).astype(np.float32, copy=False)


def grid(sides: tuple[int, int], stride: float, offset: float, per_cell: int = 1) -> Floats:
    """Returns the points of a grid row by row, `(A, 2)` x and y in pixels.

    Args:
        sides: Height and width of the grid in cells.
        stride: Pixels from point to point.
        offset: Where the point of a cell is, in strides: 0 its corner, 0.5 its centre.
        per_cell: How often each point is given.
    """
    y, x = np.mgrid[: sides[0], : sides[1]]
    points = (np.stack([x, y], axis=-1).reshape(-1, 2) + offset) * stride
    return np.repeat(points, per_cell, axis=0).astype(np.float32)


def overlaps(boxes: Array) -> Floats:
    """Returns intersection over union of each pair of boxes, `(n, 4)` to `(n, n)`."""
    low, high = np.maximum(boxes[:, None, :2], boxes[:, :2]), np.minimum(boxes[:, None, 2:], boxes[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=-1)
    areas = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=-1)
    return np.asarray(shared / np.maximum(areas[:, None] + areas - shared, 1e-9), np.float32)


def best(candidates: Candidates) -> Array:
    """Returns the best boxes of every image, `(N, MAX_BOXES)` of `BOX`; of those that overlap only the best of a class.

    Example:
        >>> boxes = np.array([[[0, 0, 10, 10], [1, 0, 10, 10], [50, 50, 60, 60]]], np.float32)
        >>> found = best(Candidates(boxes, np.array([[[0.5], [0.75], [0.25]]], np.float32)))
        >>> found["score"][0, :3].tolist(), found["label"][0, :3].tolist()
        ([0.75, 0.25, 0.0], [0, 0, -1])
    """
    found = blank(len(candidates.boxes))
    for row, boxes, scores in zip(found, *candidates, strict=True):
        kept = _best_of(boxes, np.nan_to_num(scores, nan=0.0))
        row[: len(kept)] = kept
    return found


def blank(n: int) -> Array:
    """Returns rows without boxes, `(n, MAX_BOXES)` of `BOX`."""
    found = np.zeros((n, MAX_BOXES), BOX)
    found["label"] = NOTHING
    return found


def _best_of(boxes: Array, scores: Array) -> Array:
    flat = scores.ravel()
    order = np.flatnonzero(flat > MIN_SCORE)
    if len(order) > MAX_CANDIDATES:
        order = order[np.argpartition(-flat[order], MAX_CANDIDATES)[:MAX_CANDIDATES]]
    order = order[np.argsort(-flat[order], kind="stable")]
    places, labels = order // scores.shape[1], order % scores.shape[1]
    found = np.zeros(len(order), BOX)
    found["box"], found["score"], found["label"] = boxes[places], np.minimum(flat[order], 1.0), labels
    return _without_overlaps(found)[:MAX_BOXES]


def _without_overlaps(boxes: Array) -> Array:
    """Returns boxes, the best first, without those that overlap a better one of their class."""
    same = (overlaps(boxes["box"]) > IOU) & (boxes["label"][:, None] == boxes["label"])
    alive = np.ones(len(boxes), np.bool_)
    for i in range(len(boxes)):
        if alive[i]:
            alive[i + 1 :] &= ~same[i, i + 1 :]
    return np.asarray(boxes[alive])
