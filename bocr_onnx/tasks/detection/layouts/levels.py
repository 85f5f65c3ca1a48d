"""Outputs for each grid of their own: YuNet, SCRFD, NanoDet, PicoDet, FCOS."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from bocr_onnx.graph import Array
from bocr_onnx.runtime import Columns
from bocr_onnx.runtime.functions import expit
from bocr_onnx.tasks.detection.boxes import Candidates, Floats, best, from_centres, grid
from bocr_onnx.tasks.detection.layouts.bins import distances
from bocr_onnx.tasks.detection.layouts.seen import Block, Seen, Sides, cells, is_share

LEVELS = (4, 8, 16, 32, 64, 128)
OTHER = re.compile(r"kps|kpt|landm|key|point|mask|angle")
SCORES = re.compile(r"cls|score|conf|prob|class|heat|logit")
OBJECTNESS = re.compile(r"obj|ctr|cent|iou")


@dataclass(frozen=True, slots=True)
class Level:
    """Outputs of one grid.

    Attributes:
        stride: Pixels from cell to cell.
        per_cell: Boxes of a cell.
        box: Its boxes or their bins.
        scores: Scores per class.
        objectness: How sure it is that there is something; empty where no output says so.
    """

    stride: int
    per_cell: int
    box: str
    scores: str
    objectness: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Returns its tensors."""
        return (self.box, self.scores, *([self.objectness] if self.objectness else []))


@dataclass(frozen=True, slots=True)
class Levels:
    """Outputs for each grid.

    Attributes:
        levels: The grids.
        shapes: Shapes of the tensors for one image, by name.
        sides: Height and width of the image.
        centred: Whether boxes are a centre and the logarithms of the sizes, as YuNet has them; else distances.
        offset: Where the point of a cell is, 0 its corner and 0.5 its centre.
        logits: Whether scores have not been through a Sigmoid.
        n_classes: Number of classes.
        name: ``levels``.
    """

    levels: tuple[Level, ...]
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    sides: Sides
    centred: bool
    offset: float
    logits: bool
    n_classes: int
    name: str = "levels"

    @property
    def reads(self) -> tuple[str, ...]:
        """Returns all tensors."""
        return tuple(name for level in self.levels for name in level.names)

    @property
    def preset(self) -> str:
        """Returns that of YuNet, of NanoDet, or of SCRFD."""
        return "letterbox-raw" if self.centred else "letterbox-imagenet" if self._is_binned() else "letterbox-signed"

    def blocks(self) -> tuple[Block, ...]:
        """Returns each tensor as it is, boxes with the scores of their level."""
        shapes = dict(self.shapes)

        def whole(name: str) -> Columns:
            axis = 2 if len(shapes[name]) == 2 else 1
            return Columns(axis, 0, shapes[name][axis - 1])

        found = []
        for level in self.levels:
            rated = level.objectness or level.scores
            found += [Block(name, whole(name)) for name in level.names if name != level.box]
            found.append(Block(level.box, whole(level.box), sure=(rated, whole(rated))))
        return tuple(found)

    def found(self, *arrays: Array) -> Array:
        """Returns detections; see `Layout`."""
        named = dict(zip(self.reads, arrays, strict=True))
        parts = [self._level(level, named) for level in self.levels]
        boxes, scores = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        return best(Candidates(boxes, scores))

    def _is_binned(self) -> bool:
        box = dict(self.shapes)[self.levels[0].box]
        return (box[1] if len(box) == 2 else box[0] // self.levels[0].per_cell) > 4

    def _level(self, level: Level, named: dict[str, Array]) -> tuple[Floats, Floats]:
        box, scores = (rows(named[name], level.per_cell) for name in (level.box, level.scores))
        scores = expit(scores) if self.logits else scores
        if level.objectness:
            sure = rows(named[level.objectness], level.per_cell)
            scores = np.sqrt(scores * np.clip(expit(sure) if self.logits else sure, 0, 1))
        sides = cells(self.sides, level.stride)
        if not self.centred:
            points = grid(sides, level.stride, self.offset, level.per_cell)
            return distances(box, points, level.stride), scores
        centres = box[..., :2] + grid(sides, 1, 0, level.per_cell)
        sizes = np.exp(np.minimum(box[..., 2:4], 20))
        return from_centres(np.concatenate([centres, sizes], axis=-1) * level.stride), scores


def rows(array: Array, per_cell: int) -> Floats:
    """Returns a row per box, `(N, A, C)`, of such rows or of maps `(N, per_cell * C, H, W)`."""
    if array.ndim == 4:
        n, c = array.shape[:2]
        array = array.reshape(n, per_cell, c // per_cell, -1).transpose(0, 3, 1, 2).reshape(n, -1, c // per_cell)
    return array.astype(np.float32, copy=False)


def read_levels(seen: Seen) -> Levels | None:
    """Returns the layout where each of some grids has boxes and scores of its own."""
    found = [level for stride in LEVELS if (level := _level(seen, stride)) is not None]
    if not found or len({bool(level.objectness) for level in found}) > 1:
        return None
    scores = [seen.values[level.scores] for level in found]
    n_classes = {rows(s, level.per_cell).shape[-1] for s, level in zip(scores, found, strict=True)}
    if len(n_classes) > 1:
        return None
    boxes = [rows(seen.values[level.box], level.per_cell) for level in found]
    centred = boxes[0].shape[-1] == 4 and all(level.objectness for level in found) and any(b.min() < 0 for b in boxes)
    offset = 0.0 if centred or found[0].per_cell == 2 else 0.5
    shapes = tuple((name, seen.shapes[name]) for level in found for name in level.names)
    logits = not all(is_share(s) for s in scores)
    return Levels(tuple(found), shapes, seen.sides, centred, offset, logits, n_classes.pop())


def _level(seen: Seen, stride: int) -> Level | None:
    area = math.prod(cells(seen.sides, stride))
    for per_cell in (1, 2):
        names = [
            n for n, shape in seen.shapes.items() if _belongs(shape, area, per_cell) and not OTHER.search(n.lower())
        ]
        boxes = [name for name in names if _is_box(seen, name, per_cell)]
        if len(boxes) == 1 and (level := _with_scores(seen, stride, per_cell, boxes[0], names)) is not None:
            return level
    return None


def _with_scores(seen: Seen, stride: int, per_cell: int, box: str, names: list[str]) -> Level | None:
    others = [name for name in names if name != box]
    if len(others) == 1:
        return Level(stride, per_cell, box, others[0])
    if len(others) != 2:
        return None
    first, second = others
    width = [rows(seen.values[name], per_cell).shape[-1] for name in others]
    if 1 not in width:
        return None
    swapped = (width[0] == 1 and width[1] > 1) or (width[0] == width[1] and bool(OBJECTNESS.search(first.lower())))
    return Level(stride, per_cell, box, second, first) if swapped else Level(stride, per_cell, box, first, second)


def _belongs(shape: tuple[int, ...], area: int, per_cell: int) -> bool:
    if len(shape) == 2:
        return shape[0] == area * per_cell
    return len(shape) == 3 and shape[1] * shape[2] == area and shape[0] % per_cell == 0


def _is_box(seen: Seen, name: str, per_cell: int) -> bool:
    width = rows(seen.values[name], per_cell).shape[-1]
    if SCORES.search(name.lower()):
        return False
    return width == 4 or (width % 4 == 0 and width >= 16 and not is_share(seen.values[name]))
