"""Detectors go the whole way: photos without labels, COCO labels, boxes that the graph chooses itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

import bocr_onnx
from bocr_onnx.errors import DataError
from tests.oracle import proto

pytestmark = pytest.mark.slow

BODY = """
    a = Conv <strides = [4, 4]> (images, w0)  ar = Relu(a)  b = Conv <pads = [1, 1, 1, 1]> (ar, w1)  br = Relu(b)
    p = Conv <strides = [2, 2]> (br, k8)  q = Conv <strides = [4, 4]> (br, k16)
    p2 = Reshape(p, rows)  q2 = Reshape(q, rows)  all = Concat <axis = 2> (p2, q2)  s = Sigmoid(all)"""
PLAIN = f"""m (float[N, 3, 32, 32] images) => (float[N, 6, 20] output0) {{ {BODY} output0 = Mul(s, scale) }}"""
CHOSEN = f"""m (float[1, 3, 32, 32] images) => (float[1, 8, 6] output0) {{ {BODY}
    o = Mul(s, scale)  t = Transpose <perm = [0, 2, 1]> (o)  box, score = Split <axis = 2> (t, parts)
    best = ReduceMax <axes = [2], keepdims = 0> (score)  class = ArgMax <axis = 2, keepdims = 0> (score)
    top, index = TopK <axis = 1> (best, eight)  i = Unsqueeze(index, last)  i4 = Expand(i, four)
    boxes = GatherElements <axis = 1> (box, i4)  number = GatherElements <axis = 1> (class, index)
    c = Cast <to = 1> (number)  c1 = Unsqueeze(c, last)  t1 = Unsqueeze(top, last)
    output0 = Concat <axis = 2> (boxes, t1, c1) }}"""
QUICK = {"flops": 0.75, "search": "sensitivity", "round_to": 1, "history": "none"}


def detector(folder: Path, text: str = PLAIN) -> Path:
    constants: dict[str, Any] = {
        "w0": (12, 3, 4, 4), "w1": (16, 12, 3, 3), "k8": (6, 16, 2, 2), "k16": (6, 16, 4, 4), "rows": [0, 6, -1],
        "scale": np.array([32, 32, 16, 16, 1, 1], np.float32)[:, None],
    }  # fmt: skip
    if text is CHOSEN:
        constants |= {"parts": [4, 2], "eight": [8], "last": [2], "four": [1, 8, 4]}
    onnx.save(proto(text, opset=17, **constants), folder / "detector.onnx")
    return folder / "detector.onnx"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(150):
        pixels = rng.integers(0, 256, (6, 9, 3)).astype(np.uint8)
        Image.fromarray(pixels).resize((48, 32)).save(folder / f"{i:03}.png")
    return folder


def annotate(folder: Path) -> None:
    files = sorted(folder.glob("*.png"))
    images = [{"id": i, "file_name": f.name, "width": 48, "height": 32} for i, f in enumerate(files)]
    boxes = [{"image_id": i, "category_id": 1 + i % 2, "bbox": [8, 6, 20, 18]} for i in range(len(files))]
    made = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]}
    (folder / "annotations.json").write_text(json.dumps(made))


def test_without_labels_the_originals_detections_are_the_truth(tmp_path: Path, photos: Path) -> None:
    model, slim = detector(tmp_path), tmp_path / "slim.onnx"
    report = bocr_onnx.prune(model, data=photos, output=slim, **QUICK)
    assert report.task == "detection"
    assert report.metric == "mAP50 with the original"
    assert report.baseline.accuracy == 1.0
    assert 0.2 < report.result.accuracy < 1.0
    rows = {o["name"]: o for o in report.outputs}
    assert list(rows) == ["output0 (centres)", "output0 (sizes)", "output0 (scores)", "detections"]
    assert rows["detections"]["distortion"] is None
    assert set(rows["detections"]["figures"]) == {"mAP50", "mAP50-95", "found"}
    assert rows["detections"]["figures"]["mAP50"] == report.result.accuracy
    text = (tmp_path / "slim.run" / "report.md").read_text()
    assert "| `detections` |  |  |  | 0." in text
    scored = bocr_onnx.evaluate(slim, photos, against=model)
    assert scored.metric == report.metric
    assert 0 < scored.score.value < 1
    bocr_onnx.prune(model, data=photos, output=slim, run_dir=tmp_path / "raw", **QUICK | {"recover": "none"})
    options = {"epochs": 12, "batch_size": 9, "learning_rate": 3e-3, "normalize": False}
    tuned = bocr_onnx.finetune(slim, model, data=photos, output=tmp_path / "tuned.onnx", **options)
    assert tuned.distortions[1] < tuned.distortions[0]
    assert tuned.finetune["settings"]["optimizer"] == "adamw"


def test_labels_are_coco_annotations(tmp_path: Path, photos: Path) -> None:
    annotate(photos)
    model = detector(tmp_path)
    found = bocr_onnx.evaluate(model, data=photos, preset="letterbox")
    assert found.metric == "mAP"
    assert 0 <= found.score.value < 0.5
    report = bocr_onnx.prune(model, data=photos, preset="letterbox", output=tmp_path / "slim.onnx", **QUICK)
    assert report.metric == "mAP"


def test_boxes_that_the_graph_chooses_are_compared_and_trained_before(tmp_path: Path, photos: Path) -> None:
    model, slim = detector(tmp_path, CHOSEN), tmp_path / "slim.onnx"
    report = bocr_onnx.prune(model, data=photos, output=slim, finetune=2, **QUICK)
    assert report.task == "detection"
    names = {o["name"] for o in report.outputs}
    assert {"box", "score", "detections"} <= names
    assert "output0" not in names
    assert report.finetune["epochs_done"] == 2


def test_photos_that_show_nothing_are_refused(tmp_path: Path, photos: Path) -> None:
    model = detector(tmp_path)
    made = onnx.load(model)
    for node in made.graph.node:
        if node.op_type == "Sigmoid":
            node.input[0] = "low"
    made.graph.node.insert(len(made.graph.node) - 2, onnx.helper.make_node("Sub", ["all", "much"], ["low"]))
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.full((1, 6, 1), 9, np.float32), "much"))
    onnx.save(made, model)
    with pytest.raises(DataError, match=r"must detect something with a score of 0\.25 or more, got 0\.0\d\d at best"):
        bocr_onnx.prune(model, data=photos, task="detection", output=tmp_path / "slim.onnx", **QUICK)
    assert not (tmp_path / "slim.onnx").exists()


def test_labels_of_another_kind_are_refused(tmp_path: Path, photos: Path) -> None:
    model = detector(tmp_path)
    pixels = np.zeros((40, 32, 32, 3), np.uint8)
    with pytest.raises(DataError, match="labels of a detector must be boxes"):
        bocr_onnx.evaluate(model, (pixels, np.arange(40) % 2), task="detection", preset="letterbox")
    annotate(photos)
    text = (photos / "annotations.json").read_text()
    many = [{"id": i, "name": str(i)} for i in (1, 2, 3)]
    made = json.loads(text) | {"categories": many}
    made["annotations"][0]["category_id"] = 3
    (photos / "annotations.json").write_text(json.dumps(made))
    with pytest.raises(DataError, match="classes must be below the model's 2, got 2"):
        bocr_onnx.evaluate(model, data=photos, preset="letterbox")


def test_a_text_detector_is_one_where_its_layout_is_named(tmp_path: Path, photos: Path) -> None:
    text = """m (float[1, 3, 32, 32] images) => (float[1, 1, 32, 32] map) {
        a = Conv <pads = [1, 1, 1, 1]> (images, w0)  ar = Relu(a)  b = Conv <pads = [1, 1, 1, 1]> (ar, w1)
        c = Mul(b, much)  map = Sigmoid(c) }"""
    made = proto(text, w0=(12, 3, 3, 3), w1=(1, 12, 3, 3), much=np.float32(6))
    onnx.save(made, tmp_path / "text.onnx")
    report = bocr_onnx.prune(tmp_path / "text.onnx", data=photos, layout="map", output=tmp_path / "slim.onnx", **QUICK)
    assert report.task == "detection"
    assert report.data["preprocessing"]["name"] == "letterbox-imagenet"
    assert 0 < report.result.accuracy < 1
