"""Images that are kept as pixels, in memory or in a file, and become inputs when they are looked at.

An input of single precision takes four times the memory of its pixels. What is asked for by rows comes as an array;
nothing else of it is in memory.
"""

from __future__ import annotations

import math
import os
import tempfile
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from bocr_onnx.data.preprocessing import Preprocessing
from bocr_onnx.graph import InputRows

Pixels = npt.NDArray[np.uint8]
Rows = slice | npt.NDArray[np.int64]


class PixelFile:
    """Pixels in a file of the temporary folder, which goes with the object.

    Args:
        shape: Shape of all images together, `(N, H, W, C)`.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._each = math.prod(shape[1:])
        handle, self._path = tempfile.mkstemp(prefix="bocr-onnx-", suffix=".pixels")
        os.close(handle)
        self._remove = weakref.finalize(self, _remove, self._path, os.getpid())

    def __getstate__(self) -> dict[str, Any]:
        """Returns what a copy in another process reads the file by; the file goes with the first owner."""
        return {name: value for name, value in vars(self).items() if name != "_remove"}

    def write(self, start: int, pixels: Pixels) -> None:
        """Stores images from a row on."""
        with open(self._path, "r+b") as file:  # noqa: PTH123 - a path that is only a name
            file.seek(start * self._each)
            file.write(np.ascontiguousarray(pixels).data)

    def __getitem__(self, rows: Rows) -> Pixels:
        """Returns images by rows."""
        wanted = np.arange(self.shape[0])[rows]
        made = np.empty((len(wanted), *self.shape[1:]), np.uint8)
        with open(self._path, "rb") as file:  # noqa: PTH123
            for i, run in _runs(wanted):
                file.seek(int(run[0]) * self._each)
                data = file.read(len(run) * self._each)
                made[i : i + len(run)] = np.frombuffer(data, np.uint8).reshape(len(run), *self.shape[1:])
        return made


def _remove(path: str, owner: int) -> None:
    if os.getpid() == owner and os.path.exists(path):  # noqa: PTH110
        os.unlink(path)  # noqa: PTH108


def _runs(rows: npt.NDArray[np.int64]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Yields stretches of consecutive rows, each with where it begins."""
    ends = [*(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
    start = 0
    for end in ends if len(rows) else ():
        yield start, rows[start:end]
        start = end


class LazyInputs:
    """InputRows that are made from pixels when they are asked for.

    Args:
        pixels: Shape `(N, H, W, C)`, uint8.
        preprocessing: Makes inputs of them.
        dtype: Dtype of the inputs.
    """

    def __init__(
        self, pixels: Pixels | PixelFile | PixelPart, preprocessing: Preprocessing, dtype: npt.DTypeLike = np.float32
    ) -> None:
        self.pixels, self.preprocessing, self.dtype = pixels, preprocessing, np.dtype(dtype)
        self.shape = (pixels.shape[0], *preprocessing.values(np.zeros((1, *pixels.shape[1:]), np.uint8)).shape[1:])

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: Rows) -> npt.NDArray[Any]:
        """Returns inputs by rows."""
        values = self.preprocessing.values(self.pixels[rows])
        if self.dtype.kind in "iu":
            values = np.rint(values)
        return values.astype(self.dtype, copy=False)

    def cast(self, dtype: npt.DTypeLike) -> LazyInputs:
        """Returns the same inputs in another element type; integers are rounded."""
        return LazyInputs(self.pixels, self.preprocessing, dtype)


class PixelPart:
    """Pixels from one row to another, which lie where they did.

    Args:
        pixels: All of them.
        start: First row.
        stop: Row after the last one.
    """

    def __init__(self, pixels: Pixels | PixelFile | PixelPart, start: int, stop: int) -> None:
        self.pixels, self.start = pixels, start
        self.shape: tuple[int, ...] = (stop - start, *pixels.shape[1:])

    def __getitem__(self, rows: Rows) -> Pixels:
        """Returns images by rows."""
        return self.pixels[np.arange(self.shape[0])[rows] + self.start]


def part(images: InputRows, start: int, stop: int) -> InputRows:
    """Returns the rows of inputs from one to another; what is not in memory does not come into it."""
    if isinstance(images, LazyInputs):
        return LazyInputs(PixelPart(images.pixels, start, stop), images.preprocessing, images.dtype)
    found: InputRows = images[start:stop]
    return found


class JoinedInputs:
    """The inputs of two, one after the other."""

    def __init__(self, first: InputRows, second: InputRows) -> None:
        self.parts = first, second
        self.shape = (len(first) + len(second), *first.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        """Returns inputs of a stretch."""
        first, second = self.parts
        start, stop, _ = rows.indices(len(self))
        n = len(first)
        return np.concatenate([first[start : min(stop, n)], second[max(start - n, 0) : max(stop - n, 0)]])


def in_pieces(inputs: InputRows, size: int = 256) -> Iterator[npt.NDArray[Any]]:
    """Yields all inputs, so many at once."""
    for start in range(0, len(inputs), size):
        yield inputs[start : start + size]


def joined(first: InputRows, second: InputRows) -> InputRows:
    """Returns the inputs of two, one after the other."""
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return np.concatenate([first, second])
    return JoinedInputs(first, second)
