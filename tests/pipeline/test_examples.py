"""What both models find is drawn onto the images that they saw."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bocr_onnx
from bocr_onnx.data import BOX, NOTHING, Preprocessing
from bocr_onnx.pipeline.examples import GAP, SIDE, pictured
from bocr_onnx.runtime import Head
from bocr_onnx.tasks import drawn
from bocr_onnx.tasks.detection import Detection
from bocr_onnx.tasks.drawing import colour
from bocr_onnx.tasks.segmentation import Segmentation
from tests.oracle import build

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 16, 3)).astype(np.uint8)


@pytest.mark.parametrize("channels", ["RGB", "BGR", "L"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_preprocessed_image_is_its_picture_again(channels: Any, layout: Any) -> None:
    n = 1 if channels == "L" else 3
    given = Preprocessing(
        name="t",
        channels=channels,
        scale=1 / 255,
        mean=(0.4,) * n,
        std=(0.2,) * n,
        layout=layout,
        resize=None,
        crop=None,
    )
    picture = pictured(given.apply(PIXELS), given)
    expected = np.repeat(np.asarray(Image.fromarray(PIXELS).convert("L"))[..., None], 3, -1) if n == 1 else PIXELS
    np.testing.assert_allclose(picture, expected, atol=1)


def detector(*names: str) -> Detection:
    return Detection((Head("y"),), layout=None, names=names)  # type: ignore[arg-type]


def test_boxes_are_drawn_where_they_are_in_the_enlarged_picture() -> None:
    boxes = np.zeros(3, BOX)
    boxes["label"], boxes["score"] = [2, 1, NOTHING], [0.9, 0.1, 0.9]
    boxes["box"][0] = [4, 3, 10, 9]
    grey = np.full((12, 16, 3), 99, np.uint8)
    image = np.asarray(drawn(detector("a", "b", "c"), grey, boxes, 160))
    assert image.shape == (120, 160, 3)
    assert tuple(image[60, 40]) == tuple(image[60, 99]) == tuple(image[89, 70]) == colour(2)
    assert tuple(image[10, 10]) == (99, 99, 99)
    coloured = (image != 99).any(axis=2)
    assert not coloured[:, 105:].any(), "what is not confident, or nothing, is not drawn"


def test_classes_are_painted_over_the_picture() -> None:
    scores = np.zeros((3, 6, 8), np.float32)
    scores[0, :, :4], scores[2, :, 4:] = 1, 1
    task = Segmentation((Head("y", axis=1),))
    image = np.asarray(drawn(task, np.full((12, 16, 3), 100, np.uint8), scores, 160)).astype(int)
    left, right = image[60, 10], image[60, 150]
    np.testing.assert_allclose(left, 45, atol=1)
    np.testing.assert_allclose(right, 45 + 0.55 * np.array(colour(2)), atol=2)


def test_a_segmenters_run_keeps_pictures_and_its_page_holds_them(tmp_path: Path) -> None:
    graph = build(
        "m (float[N, 3, 12, 12] x) => (float[N, 4, 12, 12] y) "
        "{ a = Conv <pads = [1, 1, 1, 1]> (x, w0, b0) r = Relu(a) y = Conv(r, w1, b1) }",
        w0=(16, 3, 3, 3), b0=(16,), w1=(4, 16, 1, 1), b1=(4,),
    )  # fmt: skip
    pixels = np.random.default_rng(0).integers(0, 256, (60, 12, 12, 3), dtype=np.uint8)
    report = bocr_onnx.prune(
        graph.proto, data=pixels, flops=0.5, search="uniform", task="segmentation", recover="oneshot", history="none",
        output=tmp_path / "s.onnx",
    )  # fmt: skip
    assert report.task == "segmentation"
    found = sorted((tmp_path / "s.run").glob("example*.jpg"))
    assert len(found) == 3
    with Image.open(found[0]) as picture:
        assert picture.size == (2 * SIDE + GAP, SIDE)
    page = bocr_onnx.write_report(tmp_path / "s.run").read_text()
    assert page.count('<img src="data:image/jpeg;base64,') == 3
    assert "Segmentation, original on the left" in page


@pytest.mark.parametrize(("channels", "axes"), [(4, 2), (2, 2), (3, 1)])
def test_what_is_not_a_picture_is_not_drawn_and_ends_no_run(channels: int, axes: int, tmp_path: Path) -> None:
    """Four bands of a satellite, two of a radar, a signal."""
    size = ", ".join(["12"] * axes)
    kernel, ones = (3,) * axes, (1,) * axes
    graph = build(
        f"m (float[N, {channels}, {size}] x) => (float[N, 4, {size}] y) "
        f"{{ a = Conv <pads = [{', '.join(['1'] * 2 * axes)}]> (x, w0, b0) r = Relu(a) y = Conv(r, w1, b1) }}",
        w0=(16, channels, *kernel), b0=(16,), w1=(4, 16, *ones), b1=(4,),
    )  # fmt: skip
    data = np.random.default_rng(0).standard_normal((60, channels, *(12,) * axes)).astype(np.float32)
    report = bocr_onnx.prune(
        graph.proto, data=data, flops=0.5, search="uniform", task="segmentation", recover="oneshot", history="none",
        output=tmp_path / "s.onnx",
    )  # fmt: skip
    assert report.proof["passed"]
    assert not list((tmp_path / "s.run").glob("example*"))


def test_a_classifiers_run_keeps_none(tmp_path: Path) -> None:
    demo, digits = (str(files("bocr_onnx.calibration") / name) for name in ("demo.onnx", "digits.npz"))
    few = {"score_images": 60, "recovery_images": 60, "final_images": 60}
    bocr_onnx.prune(
        demo, data=digits, flops=0.7, search="uniform", recover="oneshot", history="none", output=tmp_path / "s.onnx",
        **few,
    )  # fmt: skip
    assert not list((tmp_path / "s.run").glob("example*"))
