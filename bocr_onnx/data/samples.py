"""The records of data: `Samples`, which can be loaded and divided, and the `Pools` of one source."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from bocr_onnx.data.lazy import LazyInputs, PixelFile, Pixels, in_pieces
from bocr_onnx.data.preprocessing import Preprocessing
from bocr_onnx.errors import DataError, UsageError

Inputs = npt.NDArray[Any]
"""What a model reads: `(N, ...)` float32, or a `bocr_onnx.graph.table` of several inputs."""
Labels = npt.NDArray[Any]
"""Class indices `(N,)`, 0 and up, or masks of them `(N, H, W)`, int64; or numbers `(N,)` or `(N, K)`, float32."""
Rows = Sequence[int] | npt.NDArray[np.integer]

MAX_CLASSES = 1_000_000
"""Labels from here on are taken for a mistake."""

_SINGLE_BYTES = 4
_N_WORKERS = 4
_CHUNK = 256
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Raster formats: a file that only claims to be one does not start what interprets PostScript."""

_ONE_SHAPE = "Give a preset with resize and crop."


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Images, with labels or without, decoded only when asked for.

    Attributes:
        images: Files; or uint8 `(N, H, W)` or `(N, H, W, C)`; or float32 `(N, ...)` as the model reads
            them.
        labels: See `Labels`; None where there are none.
        classes: Name of every class index; empty where there are no labels.
        name: Where the samples come from, for messages and reports.
    """

    images: tuple[Path, ...] | npt.NDArray[np.uint8] | Inputs
    labels: Labels | None
    classes: tuple[str, ...]
    name: str

    def __len__(self) -> int:
        return len(self.images)

    @property
    def preprocessed(self) -> bool:
        """Whether the images are model inputs already, so that a preprocessing is not applied."""
        if isinstance(self.images, tuple):
            return False
        return self.images.dtype == np.float32 or self.images.dtype.names is not None

    def take(self, rows: Rows) -> Samples:
        """Returns the samples of the given rows, in that order."""
        index = np.asarray(rows, dtype=np.int64)
        labels = None if self.labels is None else self.labels[index]
        if isinstance(self.images, tuple):
            files = tuple(self.images[row] for row in index)
            return Samples(images=files, labels=labels, classes=self.classes, name=self.name)
        return Samples(images=self.images[index], labels=labels, classes=self.classes, name=self.name)

    def load(self, preprocessing: Preprocessing | None = None) -> Inputs:
        """Returns all inputs, `(N, ...)` float32, in the order of the samples.

        Args:
            preprocessing: Applied to every image. Images that are `preprocessed` stay as they are and need
                none.

        Raises:
            UsageError: The images are not preprocessed and no preprocessing was given.
            DataError: There are no images, one cannot be read, or their shapes differ after preprocessing.
        """
        if not len(self):
            raise DataError(f"{self.name} must hold at least one image, got none")
        if isinstance(self.images, np.ndarray) and self.images.dtype.names is not None:
            return self.images
        inputs: Inputs = np.empty(0, np.float32)
        for start, batch in enumerate(self.batches(preprocessing, _CHUNK)):
            if start == 0:
                inputs = np.empty((len(self), *batch.shape[1:]), np.float32)
            inputs[start * _CHUNK : start * _CHUNK + len(batch)] = batch
        return inputs

    def batches(self, preprocessing: Preprocessing | None, batch_size: int) -> Iterator[Inputs]:
        """Yields the inputs of `load` in pieces of `batch_size`, the last one perhaps smaller.

        Raises:
            UsageError: As `load`, or the batch size is not positive.
            DataError: As `load`; shapes are compared across batches too.
        """
        if batch_size < 1:
            raise UsageError(f"batch size must be at least 1, got {batch_size}")
        starts = range(0, len(self), batch_size)
        if isinstance(self.images, np.ndarray) and self.images.dtype == np.float32:
            yield from (self.images[start : start + batch_size].astype(np.float32) for start in starts)
            return
        if preprocessing is None:
            raise UsageError(
                f"preprocessing must be given for the images of {self.name}",
                hint="Name a preset, e.g. imagenet or cifar10, or the path of a preprocessing file.",
            )
        for pixels in self._pixels(preprocessing, batch_size):
            yield preprocessing.values(pixels)

    def open(self, preprocessing: Preprocessing | None, memory_bytes: int) -> LazyInputs | Inputs:
        """Returns all inputs as `load`, in no more memory than is given: as pixels, which are smaller, or in a file.

        Args:
            preprocessing: As `load`.
            memory_bytes: What the inputs may take.

        Raises:
            UsageError: As `load`.
            DataError: As `load`.
        """
        if self.preprocessed or preprocessing is None or not len(self):
            return self.load(preprocessing)
        kept: Pixels | PixelFile | None = None
        start = 0
        for pixels in self._pixels(preprocessing, _CHUNK):
            if kept is None:
                shape = (len(self), *pixels.shape[1:])
                n_bytes = math.prod(shape)
                if _SINGLE_BYTES * n_bytes <= memory_bytes and len(self) <= len(pixels):
                    return preprocessing.values(pixels)
                kept = np.empty(shape, np.uint8) if n_bytes <= memory_bytes else PixelFile(shape)
            if isinstance(kept, PixelFile):
                kept.write(start, pixels)
            else:
                kept[start : start + len(pixels)] = pixels
            start += len(pixels)
        assert kept is not None
        lazy = LazyInputs(kept, preprocessing)
        small = _SINGLE_BYTES * math.prod(kept.shape) <= memory_bytes
        return np.concatenate(list(in_pieces(lazy))) if small else lazy

    def _pixels(self, preprocessing: Preprocessing, batch_size: int) -> Iterator[Pixels]:
        """Yields the pixels that inputs are computed from, so many images at once, all of one size."""
        shape: tuple[int, ...] | None = None
        with ThreadPoolExecutor(_N_WORKERS) as pool:
            for start in range(0, len(self), batch_size):
                rows = range(start, min(start + batch_size, len(self)))
                pixels = list(pool.map(lambda row: self._decoded(row, preprocessing), rows))
                shape = shape or pixels[0].shape
                self._check_shapes(pixels, rows, shape, preprocessing)
                yield np.stack(pixels)

    def _decoded(self, row: int, preprocessing: Preprocessing) -> Pixels:
        image = self.images[row]
        try:
            if isinstance(image, Path):
                return preprocessing.pixels(decode(image))
            return preprocessing.pixels(image.astype(np.uint8, copy=False))
        except DataError as error:
            raise DataError(f"{self._called(row)}: {error.message}", hint=error.hint) from error

    def _called(self, row: int) -> str:
        image = self.images[row]
        return str(image) if isinstance(image, Path) else f"image {row} of {self.name}"

    def _check_shapes(
        self, pixels: Sequence[Pixels], rows: range, shape: tuple[int, ...], preprocessing: Preprocessing
    ) -> None:
        for row, value in zip(rows, pixels, strict=True):
            if value.shape != shape:
                wanted, got = (_after(preprocessing, s) for s in (shape, value.shape))
                raise DataError(
                    f"{self._called(row)} must have the shape {wanted} of {self._called(0)} after preprocessing, "
                    f"got {got}",
                    hint=_ONE_SHAPE,
                )


@dataclass(frozen=True, slots=True, eq=False)
class Pools:
    """The samples of one source: either `train` and `held_out`, or `single`.

    Attributes:
        train: Images that may be searched, recovered and trained on.
        held_out: Images kept for the final score.
        single: All images, where the source does not divide them.
        labelled: Whether every pool has labels.
        path: The source as it was given.
    """

    train: Samples | None
    held_out: Samples | None
    single: Samples | None
    labelled: bool
    path: str


def _after(preprocessing: Preprocessing, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape of an input whose pixels have a shape."""
    return preprocessing.values(np.zeros((1, *shape), np.uint8)).shape[1:]


def numbered_classes(n: int) -> tuple[str, ...]:
    """Returns the names of classes that have only their number.

    Example:
        >>> numbered_classes(3)
        ('0', '1', '2')
    """
    return tuple(str(i) for i in range(n))


def digest(samples: Samples) -> str:
    """Returns a sha256 that changes when images or labels do, to refuse a resume on other data.

    Files count by the last two parts of their path and their size, so a moved data set keeps its digest and
    a file edited without a change of size is not noticed; arrays count by their bytes.

    Raises:
        DataError: A file is gone.
    """
    sha = hashlib.sha256()
    if isinstance(samples.images, tuple):
        for path in samples.images:
            sha.update(f"{path.parent.name}/{path.name}\0{_size(path)}\n".encode())
    else:
        _add_array(sha, samples.images)
    if samples.labels is not None:
        _add_array(sha, samples.labels)
    return sha.hexdigest()


def _add_array(sha: hashlib._Hash, array: npt.NDArray[np.generic]) -> None:
    sha.update(f"{array.shape}{array.dtype.str}".encode())
    sha.update(np.ascontiguousarray(array).data)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError(f"image file {path} must be readable: {error.strerror}") from error


def decode(path: Path) -> Image.Image:
    """Returns an image, turned as its EXIF orientation says.

    Raises:
        DataError: The file is not an image in a known format.
    """
    try:
        with Image.open(path, formats=FORMATS) as picture:
            picture.load()
            return ImageOps.exif_transpose(picture)
    except _DECODE_ERRORS as error:
        raise DataError(
            f"image must be readable: {error}", hint="Replace the file or take it out of the data."
        ) from error
