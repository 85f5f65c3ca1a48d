"""Manifests: a CSV file that lists samples, with their labels or without."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bocr_onnx.data.columns import Cells, column_samples, read_labels
from bocr_onnx.data.samples import MAX_CLASSES, Labels, Samples, numbered_classes
from bocr_onnx.errors import DataError

MANIFEST = "manifest.csv"
PATH, LABEL = "path", "label"
_WHOLE = re.compile(r"\s*[0-9]{1,6}\s*")
_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*")
Line = tuple[int, dict[str, str]]
"""Its number in the file, and its cells by name of column."""


def open_manifest(folder: Path) -> Samples:
    """Returns the samples that ``manifest.csv`` of a folder lists.

    With a column ``path`` they are images, or .npy arrays. Else every column is an input of the model, by name, and
    its cells are numbers, or paths of .npy arrays or images. A column ``label`` holds classes, numbers, or paths of
    masks. Paths are relative to the folder.

    Raises:
        DataError: The manifest is malformed, names an image twice, a file that is missing or one outside of the
            folder, or what files hold does not fit.
    """
    path = folder / MANIFEST
    names, lines = _read(path)
    if PATH not in names:
        return _from_columns(folder, names, lines)
    images = tuple(_inside(folder, line[PATH], f"{path} line {n}") for n, line in lines)
    _no_repeats(path, images, [n for n, _ in lines])
    if LABEL not in names:
        return Samples(images=images, labels=None, classes=(), name=str(folder))
    labels = _labels(folder, lines)
    classes = numbered_classes(int(labels.max()) + 1) if labels.ndim == 1 and labels.dtype.kind == "i" else ()
    return Samples(images=images, labels=labels, classes=classes, name=str(folder))


def _from_columns(folder: Path, names: Sequence[str], lines: Sequence[Line]) -> Samples:
    columns = {name: _cells(folder, name, lines) for name in names if name != LABEL}
    return column_samples(str(folder / MANIFEST), columns, _cells(folder, LABEL, lines) if LABEL in names else None)


def _cells(folder: Path, name: str, lines: Sequence[Line]) -> Cells:
    cells: list[tuple[str, Path | float]] = []
    for n, line in lines:
        where, text = f"{folder / MANIFEST} line {n}", line[name]
        cells.append((where, float(text) if _NUMBER.fullmatch(text) else _inside(folder, text, where, name)))
    return cells


def _labels(folder: Path, lines: Sequence[Line]) -> Labels:
    """Returns classes; numbers where one has a decimal point; or masks where one is a file."""
    texts = [line[LABEL] for _, line in lines]
    if all(_NUMBER.fullmatch(text) for text in texts) and any(set(text) & set(".eE") for text in texts):
        return np.array(texts, np.float32)
    if any(Path(text).suffix for text in texts):
        return read_labels(str(folder / MANIFEST), _cells(folder, LABEL, lines))
    return np.array([_label(line[LABEL], f"{folder / MANIFEST} line {n}") for n, line in lines], np.int64)


def _read(path: Path) -> tuple[tuple[str, ...], list[Line]]:
    """Returns the names of the columns, and the lines."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            names = tuple(reader.fieldnames or ())
            if not set(names) - {LABEL, ""}:
                raise DataError(
                    f"{path} must have the header path,label, or the names of the model's inputs, "
                    f"got {','.join(names) or 'an empty file'}",
                    hint="Write path,label (or path alone, for no labels) as the first line.",
                )
            lines = [(reader.line_num, {name: row[name] or "" for name in names}) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} must be a readable CSV file: {error}", hint="Save it as UTF-8, comma separated."
        ) from error
    if not lines:
        raise DataError(f"{path} must list at least one image, got none", hint="Add lines path,label.")
    return names, lines


def _inside(folder: Path, name: str, where: str, column: str = PATH) -> Path:
    image = folder / name
    try:
        inside, exists = image.resolve().is_relative_to(folder.resolve()), image.is_file()
    except (OSError, ValueError) as error:
        raise DataError(f"{where}: {column} must be one of a file, got {name!r}: {error}") from error
    if not name or not inside:
        raise DataError(
            f"{where}: {column} must be inside {folder}, got {name!r}",
            hint=f"Paths in {MANIFEST} are relative to its folder.",
        )
    if not exists:
        raise DataError(f"{where}: {column} must name a file, {image} is none", hint="Add it or remove the line.")
    return image


def _no_repeats(manifest: Path, images: tuple[Path, ...], lines: list[int]) -> None:
    seen: dict[Path, int] = {}
    for image, line in zip(images, lines, strict=True):
        first = seen.setdefault(image.resolve(), line)
        if first != line:
            raise DataError(
                f"{manifest} line {line}: path must be listed once, {image.name} is on line {first} too",
                hint="Remove one of the lines: an image may not be searched on and scored on.",
            )


def _label(text: str, where: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise DataError(
            f"{where}: label must be a whole number from 0 to {MAX_CLASSES - 1}, got {text!r}",
            hint="A label is the index of the class in the model's output.",
        )
    return int(text)
