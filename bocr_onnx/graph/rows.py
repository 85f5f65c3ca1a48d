"""Inputs of many images, of which a few are looked at at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from bocr_onnx.graph.model import Array, ModelGraph


class InputRows(Protocol):
    """What inputs are used by: an array, or something that gives the rows of one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns the shape, first axis the images."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


def table(columns: Mapping[str, Array]) -> Array:
    """Returns the inputs of a model with several of them as one array: a row per sample, a field per input.

    Args:
        columns: Arrays by name of input, first axis the samples.

    Example:
        >>> rows = table({"a": np.zeros((5, 2), np.float32), "b": np.ones(5, np.int64)})
        >>> rows.shape, rows[1:3]["a"].shape
        ((5,), (2, 2))
    """
    first = next(iter(columns.values()))
    made = np.empty(len(first), dtype=[(name, column.dtype, column.shape[1:]) for name, column in columns.items()])
    for name, column in columns.items():
        made[name] = column
    return made


def feeds(graph: ModelGraph, rows: Array) -> dict[str, Array]:
    """Returns inputs by name: the fields of rows of a `table`, or the only input.

    Args:
        graph: The model.
        rows: Some rows of its inputs; one row where an input has no axis of samples, see `is_whole`.
    """
    columns = {graph.inputs[0]: rows} if rows.dtype.names is None else {name: rows[name] for name in graph.inputs}
    return {
        name: column.reshape(graph.shapes[name]) if is_whole(graph, name) else np.ascontiguousarray(column)
        for name, column in columns.items()
    }


def is_whole(graph: ModelGraph, name: str) -> bool:
    """Returns whether an input of a model with a batch of one has no first axis of samples.

    A recurrent state `(layers, 1, features)` is one; so are a sampling rate `()` and an image `(3, H, W)`.
    """
    return graph.shapes.get(name, (1,))[:1] != (1,) and graph.batch == 1 and not graph.batch_is_symbolic()


def row_shape(graph: ModelGraph, name: str) -> tuple[int, ...]:
    """Returns the shape of one sample of an input: without its first axis, or all of it where the input `is_whole`."""
    return graph.shapes[name] if is_whole(graph, name) else graph.shapes[name][1:]
