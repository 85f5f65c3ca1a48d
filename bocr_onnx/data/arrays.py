"""Images that lie in memory: .npz files and the data sets of torchvision."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bocr_onnx.data.samples import MAX_CLASSES, Labels, Pools, Samples, numbered_classes
from bocr_onnx.errors import DataError, did_you_mean
from bocr_onnx.graph import table

Array = npt.NDArray[Any]
TORCHVISION = "torchvision:"
MAX_BYTES = 8 << 30
"""Limit for all arrays of a file together; they are held in memory."""

_NPZ_NAMES = ("images", "labels", "val_images", "val_labels")
NPY_ERRORS = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, KeyError, MemoryError)
_NPZ_HINT = (
    "Save it with numpy.savez_compressed(path, images=..., labels=...), plain arrays only; "
    "val_images and val_labels are optional."
)
_TORCHVISION_HINT = "Those with train=True/False and .data work, e.g. CIFAR10, CIFAR100, MNIST, FashionMNIST."


def open_npz(path: Path) -> Pools:
    """Returns the pools of an .npz file: one, or two where there are ``val_images``.

    The arrays: ``images`` as in `Samples`, ``labels``, and the same with ``val_``; or arrays with the names of the
    model's inputs, first axis the samples, and ``labels``.

    Raises:
        DataError: The file is no .npz, is pickled, has no ``images`` or unknown arrays, shapes or types that
            are not those of `Samples`, labels that do not fit, or only one pool is labelled.
    """
    arrays = _read_npz(path)
    if "images" not in arrays:
        return _pools(str(path), _named_samples(arrays, str(path)))
    train = _samples(arrays["images"], arrays.get("labels"), f"{path} images")
    if "val_images" not in arrays:
        return _pools(str(path), train)
    return _pools(str(path), train, _samples(arrays["val_images"], arrays.get("val_labels"), f"{path} val"))


def open_npy(path: Path) -> Pools:
    """Returns the pool of an .npy file: images as in `Samples`, without labels.

    Raises:
        DataError: The file is no .npy, is pickled, is too large, or a shape or type does not fit.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES >> 30} GiB")
        with path.open("rb") as stream:
            images = np.load(stream, allow_pickle=False)
            if not isinstance(images, np.ndarray):
                raise ValueError("it is an archive of arrays")
    except NPY_ERRORS as error:
        raise DataError(f"{path} must be a readable .npy file without pickled objects: {error}") from error
    return _pools(str(path), _samples(images, None, str(path)))


def open_arrays(images: Array | Mapping[str, Array], labels: Array | None = None) -> Pools:
    """Returns the pool of images in memory, or of inputs by name; the arrays are as in `open_npz`.

    Raises:
        DataError: A shape, a type or a label does not fit.
    """
    known = None if labels is None else np.asarray(labels)
    if isinstance(images, Mapping):
        columns = {name: np.asarray(column) for name, column in images.items()}
        return _pools("arrays", _named_samples(columns | ({} if known is None else {"labels": known}), "arrays"))
    return _pools("arrays", _samples(np.asarray(images), known, "arrays"))


def open_torchvision(source: str) -> Pools:
    """Returns both pools of ``torchvision:NAME@ROOT``; nothing is downloaded.

    Raises:
        DataError: The text has another form, torchvision cannot be imported, it has no such data set, the
            data is not in ROOT, or the data set does not keep its images in one array.
    """
    name, at, root = source.removeprefix(TORCHVISION).partition("@")
    if not (name and at and root):
        raise DataError(f"data must have the form torchvision:NAME@ROOT, got {source!r}", hint=_TORCHVISION_HINT)
    train, held_out = (_torchvision_samples(name, Path(root).expanduser(), part) for part in (True, False))
    return _pools(source, train, held_out)


def _read_npz(path: Path) -> Mapping[str, Array]:
    """Returns the arrays of a file whose names are known and whose sizes are sound; nothing else is decompressed."""
    try:
        with path.open("rb") as stream:  # opened here: np.load leaves a broken file open
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it is a single .npy array")
            _check_names(path, archive.files)
            with zipfile.ZipFile(path) as members:
                declared = {name: _declared_bytes(members, f"{name}.npy") for name in archive.files}
            if sum(declared.values()) > MAX_BYTES:
                raise DataError(
                    f"{path} must hold at most {MAX_BYTES >> 30} GiB, got {sum(declared.values()) / 2**30:.1f} GiB",
                    hint="A folder of image files may be of any size.",
                )
            return {name: archive[name] for name in archive.files}
    except NPY_ERRORS as error:
        raise DataError(
            f"{path} must be a readable .npz file without pickled objects: {error}", hint=_NPZ_HINT
        ) from error


def _declared_bytes(archive: zipfile.ZipFile, member: str) -> int:
    """Returns the bytes that an array takes, from its header alone.

    Raises:
        ValueError: The header declares another size than the member has.
    """
    size = archive.getinfo(member).file_size
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
        if dtype.hasobject:
            raise ValueError("Object arrays cannot be loaded")
        declared = math.prod(shape) * dtype.itemsize
        if declared != size - stream.tell():
            raise ValueError(f"{member} declares {declared} bytes, got {size - stream.tell()}")
    return declared


def _check_names(path: Path, arrays: Sequence[str]) -> None:
    if "images" not in arrays:
        if not set(arrays) - {"labels"} or any(name.startswith("val_") for name in arrays):
            found = ", ".join(arrays) or "none"
            raise DataError(
                f"{path} must have an array 'images', or arrays named like the model's inputs, got {found}",
                hint=_NPZ_HINT,
            )
        return
    for name in arrays:
        if name not in _NPZ_NAMES:
            raise DataError(f"{path}: array {name!r} must be a known one", hint=did_you_mean(name, _NPZ_NAMES))
    if "val_labels" in arrays and "val_images" not in arrays:
        raise DataError(f"{path} must have 'val_images' for its 'val_labels'", hint=_NPZ_HINT)
    if "val_images" in arrays and ("labels" in arrays) != ("val_labels" in arrays):
        raise DataError(f"{path} must have both 'labels' and 'val_labels', or neither", hint=_NPZ_HINT)


def _named_samples(arrays: Mapping[str, Array], name: str) -> Samples:
    """Returns samples of arrays that are named like the inputs of a model."""
    columns = {key: column for key, column in arrays.items() if key != "labels"}
    lengths = {key: len(column) if column.ndim else 0 for key, column in columns.items()}
    if len(set(lengths.values())) > 1 or not min(lengths.values()):
        raise DataError(f"{name}: arrays must hold as many samples each, and one at least, got {lengths}")
    for key, column in columns.items():
        if column.dtype.kind not in "fiub" or (column.dtype.kind == "f" and not np.isfinite(column).all()):
            raise DataError(f"{name}: array {key!r} must hold finite numbers, got {column.dtype}")
    return labelled_table(columns, arrays.get("labels"), name)


def labelled_table(columns: Mapping[str, Array], labels: Array | None, name: str) -> Samples:
    """Returns samples of several inputs: arrays by name of input, first axis the samples.

    Raises:
        DataError: The labels do not fit.
    """
    return _labelled(table(columns), labels, name)


def _pools(path: str, train: Samples, held_out: Samples | None = None) -> Pools:
    labelled = train.labels is not None
    if held_out is None:
        return Pools(train=None, held_out=None, single=train, labelled=labelled, path=path)
    return Pools(train=train, held_out=held_out, single=None, labelled=labelled, path=path)


def _samples(images: Array, labels: Array | None, name: str, classes: tuple[str, ...] = ()) -> Samples:
    _check_images(images, name)
    return _labelled(images, labels, name, classes)


def _labelled(images: Array, labels: Array | None, name: str, classes: tuple[str, ...] = ()) -> Samples:
    if labels is None:
        return Samples(images=images, labels=None, classes=(), name=name)
    checked = _checked_labels(labels, len(images), name)
    if checked.ndim > 1 or checked.dtype.kind == "f":
        return Samples(images=images, labels=checked, classes=(), name=name)
    n_classes = max(int(checked.max()) + 1, len(classes))
    names = classes + numbered_classes(n_classes)[len(classes) :]
    return Samples(images=images, labels=checked, classes=names, name=name)


def _check_images(images: Array, name: str) -> None:
    grey, coloured = images.ndim == 3, images.ndim == 4 and images.shape[-1] in (1, 3, 4)
    pixels = images.dtype == np.uint8 and (grey or coloured)
    inputs = images.dtype == np.float32 and images.ndim >= 2
    if not (pixels or inputs):
        raise DataError(
            f"{name} must be (N, H, W) or (N, H, W, C) uint8, or what the model reads, (N, ...) float32, "
            f"got {images.shape} {images.dtype}",
            hint="Store decoded images as uint8 with the channels last.",
        )
    if 0 in images.shape:
        raise DataError(f"{name} must hold at least one image, got shape {images.shape}")
    if inputs and not np.isfinite(images).all():
        raise DataError(f"{name} must be finite, got NaN or infinity", hint="Preprocess the images anew.")


def _checked_labels(labels: Array, n_images: int, name: str) -> Labels:
    """Returns labels: classes `(N,)` and masks `(N, H, W)` as int64, numbers `(N,)` or `(N, K)` as float32."""
    whole = labels.dtype.kind in "iu" and labels.ndim in (1, 3)
    numbers = labels.dtype.kind == "f" and labels.ndim in (1, 2)
    if not whole and not numbers:
        raise DataError(
            f"labels of {name} must be (N,) or (N, H, W) whole numbers, or (N,) or (N, K) numbers, "
            f"got {labels.shape} {labels.dtype}",
            hint="A label is the index of the class in the model's output, a mask of such, or the number to predict.",
        )
    if len(labels) != n_images:
        raise DataError(f"labels of {name} must be as many as the images, got {len(labels)} for {n_images}")
    if numbers:
        if not np.isfinite(labels).all():
            raise DataError(f"labels of {name} must be finite, got NaN or infinity")
        return labels.astype(np.float32)
    if labels.min() < 0 or labels.max() >= MAX_CLASSES:
        row = int(np.nonzero((labels < 0) | (labels >= MAX_CLASSES))[0][0])
        raise DataError(
            f"labels of {name} must be from 0 to {MAX_CLASSES - 1}, got {labels[row].max()} at row {row}",
            hint="Count classes from 0, and leave out images without a label.",
        )
    return labels.astype(np.int64)


def _torchvision_samples(name: str, root: Path, train: bool) -> Samples:
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:
        raise DataError(
            f"torchvision must be importable for data {TORCHVISION}{name}: {error}",
            hint="pip install torchvision",
        ) from error
    if name not in datasets.__all__:
        raise DataError(f"torchvision has no data set {name!r}", hint=did_you_mean(name, datasets.__all__))
    try:
        data = getattr(datasets, name)(root=str(root), train=train, download=False)
        images, labels = np.asarray(data.data), np.asarray(data.targets)
    except (TypeError, AttributeError) as error:
        raise DataError(f"torchvision's {name} cannot be used here: {error}", hint=_TORCHVISION_HINT) from error
    except (RuntimeError, OSError, ValueError) as error:
        raise DataError(
            f"the data of torchvision's {name} must be in {root}: {error}",
            hint=f"python -c \"from torchvision.datasets import {name}; {name}('{root}', download=True)\"",
        ) from error
    classes = tuple(str(label) for label in getattr(data, "classes", ()))
    return _samples(images, labels, f"{TORCHVISION}{name} {'train' if train else 'test'}", classes)
