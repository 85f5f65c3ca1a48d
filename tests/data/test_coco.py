"""COCO annotations: read, checked, and moved along with their images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bocr_onnx.data import BOX, NOTHING, fit_boxes, load_preprocessing, open_data
from bocr_onnx.data.preprocessing import Preprocessing
from bocr_onnx.errors import DataError

BOXES = [[10, 20, 30, 40], [0, 0, 100, 50]]


def dataset(**changes: Any) -> dict[str, Any]:
    """Returns two images of 100 x 60, boxes in the first, and two categories whose ids are not in order."""
    made: dict[str, Any] = {
        "images": [{"id": 7, "file_name": "a.png", "width": 100, "height": 60},
                   {"id": 9, "file_name": "b.png", "width": 100, "height": 60}],
        "categories": [{"id": 5, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 5, "bbox": BOXES[0], "iscrowd": 0},
                        {"id": 2, "image_id": 7, "category_id": 2, "bbox": BOXES[1], "iscrowd": 1}],
    }  # fmt: skip
    return made | changes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (100, 60)).save(tmp_path / name)
    return tmp_path


def write(folder: Path, made: dict[str, Any] | str, name: str = "annotations.json") -> Path:
    (folder / name).write_text(made if isinstance(made, str) else json.dumps(made))
    return folder / name


def test_boxes_are_corners_and_classes_in_the_order_of_their_ids(folder: Path) -> None:
    write(folder, dataset())
    samples = open_data(folder).single
    assert samples is not None
    assert samples.classes == ("cat", "dog")
    assert [Path(str(p)).name for p in samples.images] == ["a.png", "b.png"]
    labels = samples.labels
    assert labels is not None
    assert labels.dtype == BOX
    assert labels["label"].tolist() == [[1, 0], [NOTHING, NOTHING]]
    assert labels["box"][0].tolist() == [[10, 20, 40, 60], [0, 0, 100, 50]]
    assert labels["crowd"].tolist() == [[False, True], [False, False]]


def test_the_file_may_lie_elsewhere(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = write(tmp_path_factory.mktemp("other"), dataset(), "instances.json")
    assert len(open_data(f"coco:{file}@{folder}").single or ()) == 2
    with pytest.raises(DataError, match=r"image 'a.png' must exist in .*") as caught:
        open_data(f"coco:{file}")
    assert "@FOLDER" in str(caught.value.hint)


def annotated(**changes: Any) -> dict[str, Any]:
    first = dataset()["annotations"][0] | changes
    return dataset(annotations=[first])


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ("{", "must be in COCO's format"),
        ("[]", "must be in COCO's format"),
        (dataset(images=[{"id": 1}]), r"images\.0\.file_name: Field required"),
        (annotated(image_id=8), "annotation 0 of .* must be of an image that is listed, got image_id 8"),
        (annotated(category_id=1), "must be of a category that is listed, got category_id 1"),
        (annotated(bbox=[90, 20, 30, 40]), r"must lie inside of its image of 100 x 60 pixels, got bbox \[90"),
        (annotated(bbox=[-9, 20, 30, 40]), "must lie inside of its image"),
        (annotated(bbox=[5, 5, -3, 40]), "must lie inside of its image"),
        (annotated(bbox=[5, 5, float("nan"), 40]), "must lie inside of its image|must be in COCO's format"),
        (annotated(bbox=[5, 5, 9]), r"bbox"),
        (dataset(annotations=[]), "must hold a box, got none"),
        (dataset(images=dataset()["images"][:1] * 2), "must give images different ids, got 7 twice"),
        (dataset(categories=dataset()["categories"][:1] * 2), "must give categories different ids, got 5 twice"),
        (dataset(images=[dataset()["images"][0] | {"file_name": "../x.png"}]), "must list images inside of"),
        (dataset(images=[dataset()["images"][0] | {"file_name": "/etc/passwd"}]), "must list images inside of"),
        (dataset(images=[dataset()["images"][0] | {"file_name": "a\0b"}]), "must be a readable path"),
        (dataset(images=[dataset()["images"][0] | {"width": 0}]), r"images\.0\.width"),
    ],
)  # fmt: skip
def test_malformed_files_are_refused(folder: Path, made: dict[str, Any] | str, words: str) -> None:
    write(folder, made)
    with pytest.raises(DataError, match=words):
        open_data(folder)


def placed(preprocessing: Preprocessing, folder: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    samples = open_data(folder).single
    assert samples is not None
    fitted = fit_boxes(samples, preprocessing).labels
    assert fitted is not None
    return fitted["box"][0], fitted["label"][0]


def drawn(box: list[int]) -> Image.Image:
    """Returns an image with a white box."""
    pixels = np.zeros((60, 100, 3), np.uint8)
    x, y, w, h = box
    pixels[y : y + h, x : x + w] = 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    "how",
    [
        {"resize": (120, 50)},
        {"resize": 120},
        {"resize": 120, "crop": (100, 180)},
        {"crop": (50, 90)},
        {"pad": (128, 64)},
        {"pad": (64, 256)},
    ],
)
def test_boxes_move_as_pixels_do(folder: Path, how: dict[str, Any]) -> None:
    """The white box of the preprocessed image is where the label says."""
    write(folder, annotated())
    preprocessing = Preprocessing(
        "p", "RGB", **{"resize": None, "crop": None} | how, scale=1, mean=(0,) * 3, std=(1,) * 3, fill=0
    )
    pixels = preprocessing.pixels(drawn(BOXES[0]))
    rows, columns = (np.flatnonzero((pixels[..., 0] > 127).any(axis=axis)) for axis in (1, 0))
    boxes, labels = placed(preprocessing, folder)
    assert labels[0] == 1
    assert boxes[0] == pytest.approx([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], abs=1.01)


def test_what_is_cut_off_is_dropped(folder: Path) -> None:
    write(
        folder,
        dataset(annotations=[dataset()["annotations"][0] | {"bbox": b} for b in ([0, 0, 8, 8], [30, 20, 30, 30])]),
    )
    crop = Preprocessing("p", "RGB", None, (30, 40), 1, (0,) * 3, (1,) * 3)
    boxes, labels = placed(crop, folder)
    assert labels.tolist() == [NOTHING, 1]
    assert boxes[1].tolist() == [0, 5, 30, 30]


def test_classes_are_found_by_the_names_in_the_model(folder: Path) -> None:
    write(folder, dataset())
    samples = open_data(folder).single
    assert samples is not None
    labels = fit_boxes(samples, load_preprocessing("unit"), ("bird", "dog", "cat")).labels
    assert labels is not None
    assert labels["label"].tolist() == [[1, 2], [NOTHING, NOTHING]]
    numbered = fit_boxes(samples, load_preprocessing("unit"), ("0", "1", "2")).labels
    assert numbered is not None
    assert numbered["label"].tolist() == [[1, 0], [NOTHING, NOTHING]]
    with pytest.raises(DataError, match="category 'cat' must be a class of the model") as caught:
        fit_boxes(samples, load_preprocessing("unit"), ("cut", "dog"))
    assert "cut" in str(caught.value.hint)


def test_a_letterbox_takes_the_size_of_the_model() -> None:
    preset = load_preprocessing("letterbox")
    with pytest.raises(DataError, match="must be fitted to a model whose input has a size"):
        preset.apply(drawn(BOXES[0]))
    assert preset.fitted(32, 64, "NCHW").apply(drawn(BOXES[0])).shape == (3, 32, 64)
    assert preset.fitted(32, 64, "NHWC").apply(drawn(BOXES[0])).shape == (32, 64, 3)
    assert load_preprocessing("unit").fitted(32, 64, "NCHW") == load_preprocessing("unit")
