"""What a layout is recognised by: shapes of the outputs of one image, and the values that they take on noise."""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
from onnx import TensorProto

from bocr_onnx.graph import FLOATING, Array, ModelGraph, random_feeds, with_outputs
from bocr_onnx.runtime import Columns, run_once

NUMBERS = (*FLOATING, TensorProto.INT64, TensorProto.INT32)
"""Element types of boxes, scores and classes."""

STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (16, 32), (8, 16), (4, 8, 16), (8,), (16,), (32,), (4,))
"""Sets of grids that detectors have, in pixels from cell to cell, the most frequent first."""

Sides = tuple[int, int]
"""Height and width in pixels."""


class Block(NamedTuple):
    """Entries of one kind of a tensor.

    Attributes:
        tensor: Its name.
        columns: Where they are.
        part: What they are, where the tensor holds entries of other kinds as well.
        sure: Tensor and columns of the scores of these entries, where they are boxes.
    """

    tensor: str
    columns: Columns
    part: str = ""
    sure: tuple[str, Columns] | None = None


class Layout(Protocol):
    """How boxes are read from outputs; a frozen dataclass, since it travels to worker processes."""

    @property
    def name(self) -> str:
        """Returns its name, as ``--layout`` takes it."""
        ...

    @property
    def reads(self) -> tuple[str, ...]:
        """Returns the tensors that `found` takes."""
        ...

    @property
    def n_classes(self) -> int | None:
        """Returns how many classes the detector has; None where only its detections tell."""
        ...

    @property
    def preset(self) -> str:
        """Returns the preprocessing that such detectors are usually trained with."""
        ...

    def blocks(self) -> tuple[Block, ...]:
        """Returns what is compared with the original, each kind by its own spread."""
        ...

    def found(self, *arrays: Array) -> Array:
        """Returns detections, `(N, MAX_BOXES)` of `BOX`, of the tensors that it reads, first axis the images."""
        ...


@dataclass(frozen=True)
class Seen:
    """Outputs of a detector.

    Attributes:
        graph: The model.
        names: Its outputs.
    """

    graph: ModelGraph
    names: tuple[str, ...]

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shapes for one image, without an axis of images."""
        known = [name for name in self.names if name in self.graph.shapes]
        return {name: self.shape(name) for name in known if self.graph.dtypes.get(name) in NUMBERS}

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of a tensor for one image."""
        shape = self.graph.shapes[name]
        return shape[1:] if shape[:1] == (self.graph.batch,) else shape

    @cached_property
    def sides(self) -> Sides:
        """Returns the size of the image; (0, 0) where the model reads none."""
        shape = self.graph.shapes.get(self.graph.inputs[0], ())
        if len(shape) != 4:
            return 0, 0
        height, width = shape[1:3] if shape[3] in (1, 3) and shape[1] not in (1, 3) else shape[2:]
        return int(height), int(width)

    @cached_property
    def values(self) -> dict[str, Array]:
        """Returns the outputs for noise, first axis the images."""
        return self.run(self.names)

    def run(self, names: tuple[str, ...]) -> dict[str, Array]:
        """Returns tensors for noise, first axis the images."""
        inner = [name for name in names if name not in self.graph.outputs]
        proto = with_outputs(self.graph.proto, inner) if inner else self.graph.proto
        every = [*self.graph.outputs, *inner]
        found = dict(zip(every, run_once(proto, random_feeds(self.graph, seed=0)), strict=True))
        return {name: found[name].reshape(-1, *self.shape(name)) for name in names if name in self.graph.shapes}

    @property
    def class_names(self) -> tuple[str, ...]:
        """Returns the names of the classes where the exporter wrote them into the file."""
        return class_names(self.graph)

    def grids(self, n: int) -> tuple[tuple[int, ...], int] | None:
        """Returns the strides whose grids have `n` points together, and how many boxes each point has."""
        for per_cell in (1, 3, 2):
            for strides in STRIDES:
                if per_cell * sum(math.prod(cells(self.sides, s)) for s in strides) == n:
                    return strides, per_cell
        return None


def class_names(graph: ModelGraph) -> tuple[str, ...]:
    """Returns the names of the classes, which Ultralytics writes into a file as a dict; empty where there are none."""
    text = next((p.value for p in graph.proto.metadata_props if p.key == "names"), "")
    try:
        names = ast.literal_eval(text) if text and len(text) < 1 << 20 else {}  # data, never code
        return tuple(str(names[i]) for i in range(len(names)))
    except (ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError):
        return ()


def cells(sides: Sides, stride: int) -> Sides:
    """Returns height and width of a grid."""
    return -(-sides[0] // stride), -(-sides[1] // stride)


def is_share(values: Array) -> bool:
    """Returns whether values are probabilities, all of them in [0, 1]."""
    return bool(np.all((values >= 0) & (values <= 1)))


def are_corners(boxes: Array) -> bool:
    """Returns whether boxes `(..., 4)` are corners: the second is below and to the right of the first."""
    return bool(np.mean((boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])) > 0.98)


def to_pixels(boxes: Array, sides: Sides) -> tuple[float, float]:
    """Returns what x and y are multiplied by to be pixels: the sides of the image, or 1 where they are already."""
    return (1.0, 1.0) if np.abs(boxes).max(initial=0) > 16 else (float(sides[1]), float(sides[0]))
