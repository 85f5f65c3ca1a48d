"""Samples in separate files that are not just images: .npy arrays, and manifests with a column per input.

A cell of a column is a number, or the path of an .npy array or of an image; what it holds lies in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bocr_onnx.data.arrays import MAX_BYTES, NPY_ERRORS, Array, labelled_table
from bocr_onnx.data.preprocessing import Preprocessing
from bocr_onnx.data.samples import Pools, Samples, decode
from bocr_onnx.errors import DataError
from bocr_onnx.graph import table

NPY = ".npy"
Cells = Sequence[tuple[str, Path | float]]
"""A place to name in a message, and a file or a number."""


def with_arrays(pools: Pools) -> Pools:
    """Returns pools whose files, where they are .npy arrays, are read: one sample per file, without a batch axis.

    Raises:
        DataError: There are images too, a file is no .npy or pickled, shapes differ, or there is too much.
    """
    parts = (None if part is None else _with_arrays(part) for part in (pools.train, pools.held_out, pools.single))
    train, held_out, single = parts
    return replace(pools, train=train, held_out=held_out, single=single)


def _with_arrays(samples: Samples) -> Samples:
    files = samples.images
    if not isinstance(files, tuple):
        return samples
    arrays = [file for file in files if file.suffix.lower() == NPY]
    if not arrays:
        return samples
    if len(arrays) < len(files):
        image = next(file for file in files if file not in set(arrays))
        raise DataError(
            f"{samples.name} must hold either images or {NPY} arrays, got both: {image.name} and {arrays[0].name}",
            hint="List both in a manifest with a column per input.",
        )
    found = read_column(samples.name, [(str(file), file) for file in files])
    return replace(samples, images=found.astype(np.float32))


def with_pixels(rows: Array, preprocessing: Preprocessing) -> Array:
    """Returns rows of a `table` whose columns of pixels, uint8 `(N, H, W, C)`, went through a preprocessing."""
    columns = {name: rows[name] for name in rows.dtype.names or ()}
    for name, column in columns.items():
        if column.dtype == np.uint8 and column.ndim == 4 and column.shape[-1] in (1, 3, 4):
            columns[name] = Samples(images=column, labels=None, classes=(), name=name).load(preprocessing)
    return table(columns)


def column_samples(name: str, columns: Mapping[str, Cells], labels: Cells | None) -> Samples:
    """Returns samples of several inputs, a column each.

    Args:
        name: Where they come from.
        columns: Cells by name of input, as many each.
        labels: Classes, numbers or masks; None where there are none.

    Raises:
        DataError: As `read_column`, or the labels do not fit.
    """
    arrays = {key: read_column(f"{name} column {key!r}", cells) for key, cells in columns.items()}
    arrays = {key: array[:, None] if array.ndim == 1 else array for key, array in arrays.items()}
    return labelled_table(arrays, None if labels is None else read_labels(name, labels), name)


def read_labels(name: str, cells: Cells) -> Array:
    """Returns labels of a manifest: whole numbers where all are, numbers, or masks.

    Raises:
        DataError: As `read_column`.
    """
    found = read_column(f"{name} column 'label'", cells)
    whole = found.ndim > 1 or bool((found == np.rint(found)).all())
    return found.astype(np.int64) if whole and found.ndim in (1, 3) else found.astype(np.float32)


def read_column(name: str, cells: Cells) -> Array:
    """Returns what cells hold, first axis the samples.

    Raises:
        DataError: A file cannot be read, shapes or types differ, or there is more than memory should hold.
    """
    first: Array | None = None
    made: list[Array] = []
    for where, value in _values(cells):
        first = value if first is None else first
        if value.shape != first.shape:
            raise DataError(
                f"{where}: what {name} holds must have one shape, {first.shape}, got {value.shape}",
                hint="Resize or pad the samples before.",
            )
        if value.nbytes * len(cells) > MAX_BYTES:
            raise DataError(f"{name} must hold at most {MAX_BYTES >> 30} GiB")
        if not np.isfinite(value).all():
            raise DataError(f"{where}: {name} must be finite, got NaN or infinity")
        made.append(value)
    return np.stack(made)


def _values(cells: Cells) -> Iterator[tuple[str, Array]]:
    for where, cell in cells:
        if not isinstance(cell, Path):
            yield where, np.array(cell, np.float32)
        elif cell.suffix.lower() == NPY:
            yield where, _read_npy(cell)
        else:
            try:
                yield where, np.asarray(decode(cell))
            except DataError as error:
                raise DataError(f"{where}: {error.message}", hint=error.hint) from error


def _read_npy(path: Path) -> Array:
    try:
        with path.open("rb") as stream:
            array = np.load(stream, allow_pickle=False)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
            raise ValueError("it holds no array of numbers")
    except NPY_ERRORS as error:
        raise DataError(f"{path} must be a readable .npy file without pickled objects: {error}") from error
    return array
