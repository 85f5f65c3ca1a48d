"""Boxes in COCO's format: a JSON file that lists images, categories and annotations.

References:
    https://cocodataset.org/#format-data, object detection.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from bocr_onnx.data.boxes import BOX, NOTHING, Boxes
from bocr_onnx.data.samples import Pools, Samples
from bocr_onnx.errors import DataError
from bocr_onnx.graph import read_text

COCO = "coco:"
BESIDE = ("annotations.json", "_annotations.coco.json")
"""Names of the file where it lies beside its images."""

MAX_BYTES = 1 << 30
MAX_BOXES = 10_000
"""Boxes of an image from here on are taken for a mistake."""

OVERHANG = 2.0
"""Pixels that a box may reach over the edge of its image, as rounding makes it."""

Side = Annotated[int, Field(gt=0, le=1 << 20)]


class _Image(BaseModel):
    id: int
    file_name: str
    width: Side
    height: Side


class _Category(BaseModel):
    id: int
    name: str


class _Annotation(BaseModel):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    iscrowd: int = 0


class _File(BaseModel):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Annotation]


def open_coco(file: Path, folder: Path, path: str) -> Pools:
    """Returns the images that a file lists, their boxes as labels `(N, M)` of `BOX`, in pixels of the files.

    Classes count from 0 in the order of the ids of the categories.

    Args:
        file: The JSON file.
        folder: Where its images are.
        path: The source as it was given.

    Raises:
        DataError: The file cannot be read, is malformed, lists an image that is missing, outside of the folder or
            listed twice, or a box is of an unknown image or category, or outside of its image.
    """
    found = _read(file)
    images = {image.id: image for image in found.images}
    _no_twins(file, "images", [image.id for image in found.images])
    _no_twins(file, "categories", [category.id for category in found.categories])
    categories = sorted(found.categories, key=lambda category: category.id)
    numbers = {category.id: i for i, category in enumerate(categories)}
    boxes: dict[int, list[tuple[int, _Annotation]]] = defaultdict(list)
    for i, annotation in enumerate(found.annotations):
        _check(file, i, annotation, images, numbers)
        boxes[annotation.image_id].append((numbers[annotation.category_id], annotation))
    labels = _labels(file, found.images, boxes)
    samples = Samples(
        images=tuple(_inside(folder, image.file_name, file) for image in found.images),
        labels=labels,
        classes=tuple(category.name for category in categories),
        name=str(file),
    )
    return Pools(train=None, held_out=None, single=samples, labelled=True, path=path)


def _read(file: Path) -> _File:
    try:
        return _File.model_validate_json(read_text(file, MAX_BYTES))
    except (OSError, ValueError) as error:
        raise DataError(f"annotations {file} must be in COCO's format: {_reason(error)}") from error


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first["loc"] else first["msg"]
    return (error.strerror if isinstance(error, OSError) else "") or str(error)[:200]


def _no_twins(file: Path, kind: str, ids: Sequence[int]) -> None:
    if len(set(ids)) < len(ids):
        twin = next(i for n, i in enumerate(ids) if i in ids[:n])
        raise DataError(f"annotations {file} must give {kind} different ids, got {twin} twice")


def _check(file: Path, i: int, annotation: _Annotation, images: dict[int, _Image], numbers: dict[int, int]) -> None:
    where = f"annotation {i} of {file}"
    if annotation.image_id not in images:
        raise DataError(f"{where} must be of an image that is listed, got image_id {annotation.image_id}")
    if annotation.category_id not in numbers:
        raise DataError(f"{where} must be of a category that is listed, got category_id {annotation.category_id}")
    image = images[annotation.image_id]
    x, y, width, height = annotation.bbox
    inside = (
        min(x, y) >= -OVERHANG
        and min(width, height) >= 0
        and x + width <= image.width + OVERHANG
        and y + height <= image.height + OVERHANG
    )
    if not inside:  # also where a number is none
        raise DataError(
            f"{where} must lie inside of its image of {image.width} x {image.height} pixels, got bbox "
            f"{list(annotation.bbox)}",
            hint="COCO's boxes are left, top, width and height in pixels.",
        )


def _labels(file: Path, images: Sequence[_Image], boxes: dict[int, list[tuple[int, _Annotation]]]) -> Boxes:
    most = max((len(found) for found in boxes.values()), default=0)
    if not most:
        raise DataError(f"annotations {file} must hold a box, got none")
    if most > MAX_BOXES:
        raise DataError(f"annotations {file} must hold at most {MAX_BOXES} boxes per image, got {most}")
    labels = np.zeros((len(images), most), BOX)
    labels["label"] = NOTHING
    for row, image in zip(labels, images, strict=True):
        for record, (number, annotation) in zip(row, boxes[image.id], strict=False):
            x, y, width, height = annotation.bbox
            if min(width, height) > 0:
                corners = x, y, min(x + width, image.width), min(y + height, image.height)
                record["box"], record["label"], record["crowd"] = corners, number, bool(annotation.iscrowd)
                record["size"] = image.width, image.height
    return labels


def _inside(folder: Path, name: str, file: Path) -> Path:
    path = folder / name
    try:
        resolved = path.resolve()
        if not resolved.is_relative_to(folder.resolve()):
            raise DataError(f"annotations {file} must list images inside of {folder}, got {name!r}")
        if not resolved.is_file():
            raise DataError(
                f"annotations {file}: image {name!r} must exist in {folder}",
                hint=f"Say where the images are: `data={COCO}{file}@FOLDER`",
            )
    except (OSError, ValueError) as error:
        raise DataError(f"annotations {file}: image {name[:200]!r} must be a readable path: {error}") from error
    return path
