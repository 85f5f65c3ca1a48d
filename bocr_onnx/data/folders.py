"""Folders of image files: train and val, class folders, a manifest, or plain images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bocr_onnx.data.columns import NPY, with_arrays
from bocr_onnx.data.manifest import MANIFEST, open_manifest
from bocr_onnx.data.samples import Labels, Pools, Samples
from bocr_onnx.errors import DataError

TRAIN = "train"
HELD_OUT = ("val", "test", "validation")
SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", NPY, ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def open_folder(folder: Path) -> Pools:
    """Returns the pools of a folder; the first form that fits is taken.

    1. ``train/`` and ``val/`` (else ``test/``, else ``validation/``), each with one folder per class.
    2. ``manifest.csv``, see `open_manifest`.
    3. One folder per class.
    4. Plain images, without labels.

    Instead of images there may be .npy files, each one sample as the model reads it, without the batch axis. Names
    that start with a dot are passed over. Class indices follow the sorted names of the folders.

    Raises:
        DataError: No form fits; a class folder is empty; the classes of the two pools differ; the manifest
            is malformed, names a file twice, one that is missing or one outside of the folder.
    """
    return with_arrays(_pools(folder))


def _pools(folder: Path) -> Pools:
    held_out = next((folder / name for name in HELD_OUT if (folder / name).is_dir()), None)
    if (folder / TRAIN).is_dir() and held_out is not None:
        return _divided(folder, folder / TRAIN, held_out)
    if (folder / MANIFEST).is_file():
        return _one_pool(folder, open_manifest(folder))
    folders, images = _entries(folder)
    if folders and images:
        raise DataError(
            f"folder {folder} must hold either images or class folders, got both: "
            f"{images[0].name} and {folders[0].name}/",
            hint=f"Move the images into class folders or list them in {MANIFEST}.",
        )
    if images:
        return _one_pool(folder, Samples(images=images, labels=None, classes=(), name=str(folder)))
    return _one_pool(folder, _from_classes(folder))


def _divided(folder: Path, train: Path, held_out: Path) -> Pools:
    pools = _from_classes(train), _from_classes(held_out)
    odd = sorted(set(pools[0].classes) ^ set(pools[1].classes))
    if odd:
        missing = held_out if odd[0] in pools[0].classes else train
        raise DataError(
            f"{train} and {held_out} must have the same class folders, {missing} lacks {odd[0]!r}",
            hint="Add the missing class folders or remove their counterparts.",
        )
    return Pools(train=pools[0], held_out=pools[1], single=None, labelled=True, path=str(folder))


def _one_pool(folder: Path, samples: Samples) -> Pools:
    labelled = samples.labels is not None
    return Pools(train=None, held_out=None, single=samples, labelled=labelled, path=str(folder))


def _entries(folder: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Returns the folders and the images directly in a folder, each sorted by name."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"folder {folder} must be readable: {error.strerror}") from error
    folders = tuple(entry for entry in entries if entry.is_dir())
    images = tuple(entry for entry in entries if entry.suffix.lower() in SUFFIXES and entry.is_file())
    return folders, images


def _from_classes(folder: Path) -> Samples:
    folders, _ = _entries(folder)
    if not folders:
        raise DataError(
            f"folder {folder} must hold images or class folders, got neither",
            hint=f"Known images end in {', '.join(sorted(SUFFIXES))}.",
        )
    if len(folders) == 1:
        raise DataError(
            f"folder {folder} must hold at least two class folders, got only {folders[0].name}/",
            hint=_one_folder_hint(folders[0]),
        )
    per_class = [_class_images(entry) for entry in folders]
    labels: Labels = np.repeat(np.arange(len(folders), dtype=np.int64), [len(images) for images in per_class])
    return Samples(
        images=tuple(path for images in per_class for path in images),
        labels=labels,
        classes=tuple(entry.name for entry in folders),
        name=str(folder),
    )


def _one_folder_hint(only: Path) -> str:
    if only.name in (TRAIN, *HELD_OUT):
        return f"Put {TRAIN}/ and {HELD_OUT[0]}/ side by side, or give {only} itself."
    return f"For images without labels give {only} itself."


def _class_images(folder: Path) -> tuple[Path, ...]:
    folders, images = _entries(folder)
    if not images:
        found = f"got the folder {folders[0].name}/" if folders else "got none"
        raise DataError(
            f"class folder {folder} must hold images directly, {found}",
            hint="Remove the empty class folder, or move its images into it.",
        )
    return images
