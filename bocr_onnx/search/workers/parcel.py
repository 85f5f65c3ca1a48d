"""An object on its way to other processes: pickled once into a file, whose arrays all of them map and none copies.

Layout: the pickle, then the bytes of every array, each at a multiple of `ALIGNMENT`.
"""

from __future__ import annotations

import mmap
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bocr_onnx.errors import OutputError

ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Parcel:
    """A file that holds an object.

    Attributes:
        path: The file.
        spans: Start and length of the pickle and of every array, in bytes.
    """

    path: Path
    spans: tuple[tuple[int, int], ...]

    def unpack(self) -> Any:
        """Returns the object; its arrays are read-only and stay valid when the file is deleted."""
        with self.path.open("rb") as file:
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        head, *arrays = (mapped[start : start + length] for start, length in self.spans)
        return pickle.loads(head, buffers=arrays)


def pack(value: object, path: Path) -> Parcel:
    """Returns the parcel of an object, written to a file.

    Args:
        value: Anything that pickles.
        path: The file.

    Raises:
        OutputError: The file cannot be written.

    Example:
        >>> import numpy as np, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pack({"a": np.arange(3)}, Path(folder) / "parcel").unpack()
        {'a': array([0, 1, 2])}
    """
    arrays: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=arrays.append)
    try:
        return Parcel(path, _write(path, [memoryview(head), *(array.raw() for array in arrays)]))
    except OSError as error:
        raise OutputError(
            f"temporary folder {path.parent} must have room for the images and the model, got {error.strerror}",
            hint="Name another one with the environment variable TMPDIR.",
        ) from error


def _write(path: Path, pieces: list[memoryview]) -> tuple[tuple[int, int], ...]:
    spans = []
    with path.open("wb") as file:
        for piece in pieces:
            start = file.seek(-file.tell() % ALIGNMENT, os.SEEK_CUR)
            file.write(piece)
            spans.append((start, piece.nbytes))
    return tuple(spans)
