"""Tensors of a model for many images, batch by batch."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx import ModelProto

from bocr_onnx.graph import Array, InputRows, ModelGraph, feeds, with_outputs
from bocr_onnx.runtime.functions import expit
from bocr_onnx.runtime.session import open_session, run_session

RUN_BATCH = 100

WEIGHED = np.dtype([("value", np.float32), ("sure", np.float32)])
"""A number, and how much it counts, in [0, 1]."""

MAX_ENTRIES = 2_048
"""Entries of a tensor that are kept per image; of a larger one a fixed sample of positions stands for all."""

Progress = Callable[[int, int], None]
"""Told after each step how many of how many are done."""

Outputs = tuple[Array, ...]
"""One array per head, first axis the images."""


class Columns(NamedTuple):
    """Places ``start`` to ``stop`` of one axis of a tensor; axis 0 is the images."""

    axis: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A tensor that is looked at.

    Attributes:
        name: Its name; of an output, or of a tensor inside.
        axis: Axis of its classes, which is moved to axis 1 and kept whole; None where all entries are alike.
        positions: Entries that are looked at, of the others flattened, `(n,)` int64; None for all.
        weight: How much its distortion counts beside that of other tensors; 0 and up.
        whole: Whether the tensor of one sample has no axis of samples: a model with a batch of one that dropped it.
        columns: Entries of one kind among several, such as boxes beside scores; of these are the positions.
        part: Name of that kind.
        sure: Tensor and columns that say how much each place counts: the scores of boxes, the largest at each place.
    """

    name: str
    axis: int | None = None
    positions: Array | None = None
    weight: float = 1.0
    whole: bool = False
    columns: Columns | None = None
    part: str = ""
    sure: tuple[str, Columns] | None = None

    @property
    def title(self) -> str:
        """Returns what it is called in tables."""
        return f"{self.name} ({self.part})" if self.part else self.name

    @property
    def reads(self) -> tuple[str, ...]:
        """Returns the tensors that `view` takes."""
        return (self.name,) if self.sure is None or self.sure[0] == self.name else (self.name, self.sure[0])

    def view(self, *arrays: Array) -> Array:
        """Returns what is kept of a batch: as it is, its classes second, or only some of its positions.

        Returns:
            `(n, positions)`, or `(n, n_classes, positions)` with an axis of classes; as it is if all are kept. Of
            `WEIGHED` where places count differently.
        """
        whole = tuple(array[None] for array in arrays) if self.whole else arrays
        array = self._kept(whole[0])
        if self.sure is None or self.columns is None:
            return array
        found = np.empty(array.shape, WEIGHED)
        found["value"] = array
        found["sure"] = self._kept(self._certainty(whole[-1], whole[0].shape), narrow=False)
        return found

    def _certainty(self, scores: Array, shape: tuple[int, ...]) -> Array:
        """Returns the largest score of every place, as often as the columns of a tensor need it."""
        assert self.sure is not None
        assert self.columns is not None
        axis, start, stop = self.sure[1]
        largest = scores.take(range(start, stop), axis=axis).max(axis=axis)
        if largest.min(initial=0) < 0 or largest.max(initial=0) > 1:
            largest = expit(largest)
        narrowed = [*shape]
        narrowed[self.columns.axis] = self.columns.stop - self.columns.start
        return np.broadcast_to(np.expand_dims(largest, self.columns.axis), narrowed)

    def _kept(self, array: Array, *, narrow: bool = True) -> Array:
        if array.ndim == 1:
            array = array[:, None]
        if self.columns is not None and narrow:
            axis, start, stop = self.columns
            array = array.take(range(start, stop), axis=axis)
        if self.axis is not None:
            array = np.moveaxis(array, self.axis, 1)
        if self.positions is None:
            return array
        kept = array.shape[:1] if self.axis is None else array.shape[:2]
        return np.ascontiguousarray(array.reshape(*kept, -1)[..., self.positions])

    def sample(self, labels: Array) -> Array:
        """Returns labels of the positions that are looked at, `(n, positions)`, for one label per position."""
        flat = labels.reshape(len(labels), -1)
        return flat if self.positions is None else flat[:, self.positions]


def make_head(graph: ModelGraph, name: str, axis: int | None = None, *, share: int = 1, whole: bool = False) -> Head:
    """Returns a head that keeps at most `MAX_ENTRIES` entries per image.

    Args:
        graph: The original.
        name: The tensor.
        axis: Axis of its classes.
        share: Number of heads that share the entries.
        whole: Whether it has no axis of samples.
    """
    sizes = [size for i, size in enumerate(graph.shapes[name]) if whole or i not in (0, axis)]
    n_whole = 1 if axis is None else graph.shapes[name][axis]
    n_positions, n = math.prod(sizes), max(16, MAX_ENTRIES // (share * n_whole))
    kept = np.sort(np.random.default_rng(0).permutation(n_positions)[:n]) if n_positions > n else None
    return Head(name, axis, kept, whole=whole)


def batch_size(graph: ModelGraph, wish: int = 50) -> int:
    """Returns how many images one run takes: `wish` where the model leaves its batch open."""
    return wish if graph.batch_is_symbolic() else graph.batch


def predict(
    graph: ModelGraph,
    model: ModelProto | ort.InferenceSession,
    images: InputRows,
    *,
    rows: range | None = None,
    progress: Progress | None = None,
) -> npt.NDArray[np.float32]:
    """Returns the first output of a model for every image, shape `(n_images, ...)`; see `predict_heads`."""
    session = open_session(model) if isinstance(model, ModelProto) else model
    return _concatenated(graph, session, images, [graph.outputs[0]], rows, progress, lambda found: found)[0]


def predict_heads(
    graph: ModelGraph,
    model: ModelProto | ort.InferenceSession,
    images: InputRows,
    heads: Sequence[Head],
    *,
    rows: range | None = None,
    progress: Progress | None = None,
) -> Outputs:
    """Returns tensors of a model for every image.

    Args:
        graph: The original, which knows the interface.
        model: It, or a slim model of it; a session must have the tensors as outputs, see `open_heads`.
        images: Preprocessed, first axis the images. With a batch baked into the model the last run is padded.
        heads: Tensors to look at.
        rows: Rows of the images to use; all where None.
        progress: Told after each batch.
    """
    session = open_heads(model, heads) if isinstance(model, ModelProto) else model
    viewed = functools.partial(view_heads, heads)
    return _concatenated(graph, session, images, tensors_of(heads), rows, progress, viewed)


def tensors_of(heads: Sequence[Head]) -> list[str]:
    """Returns the tensors that heads take."""
    return list(dict.fromkeys(name for head in heads for name in head.reads))


def view_heads(heads: Sequence[Head], found: Sequence[Array]) -> list[Array]:
    """Returns what heads keep of the tensors of a batch, in the order of `tensors_of`."""
    by_name = dict(zip(tensors_of(heads), found, strict=True))
    return [head.view(*(by_name[name] for name in head.reads)) for head in heads]


def with_heads(model: ModelProto, heads: Sequence[Head]) -> ModelProto:
    """Returns a model that has the heads among its outputs."""
    own = {output.name for output in model.graph.output}
    inner = [name for name in tensors_of(heads) if name not in own]
    return with_outputs(model, inner) if inner else model


def open_heads(model: ModelProto, heads: Sequence[Head]) -> ort.InferenceSession:
    """Returns a session of a model that has the heads among its outputs."""
    return open_session(with_heads(model, heads))


def _concatenated(
    graph: ModelGraph,
    session: ort.InferenceSession,
    images: InputRows,
    names: list[str],
    rows: range | None,
    progress: Progress | None,
    viewed: Callable[[list[Array]], list[Array]],
) -> Outputs:
    rows = rows or range(len(images))
    found, done = [], 0
    for feed, n in batches_of(graph, images, rows, batch_size(graph, RUN_BATCH)):
        outputs = run_session(session, feed, names)
        found.append([array[:n] for array in viewed(outputs)])
        done += n
        if progress:
            progress(done, len(rows))
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))


def batches_of(graph: ModelGraph, images: InputRows, rows: range, batch: int) -> Iterator[tuple[dict[str, Array], int]]:
    """Yields inputs by name and how many images they hold; a batch baked into the model is padded with the last one."""
    for start in range(rows.start, rows.stop, batch):
        feed = images[start : min(start + batch, rows.stop)]
        n = len(feed)
        if n < batch and not graph.batch_is_symbolic():
            feed = np.concatenate([feed, np.repeat(feed[-1:], batch - n, axis=0)])
        yield feeds(graph, feed), n
