"""Every layout: a box is written as exporters write it, by code of this file, and read back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bocr_onnx.errors import DataError
from bocr_onnx.graph import Array, ModelGraph
from bocr_onnx.runtime import predict_heads
from bocr_onnx.tasks import described, find_task, measured
from bocr_onnx.tasks.detection import find_layout
from tests.oracle import build

SIDE = 64
CENTRE, SIZE, LABEL, SCORE, N_CLASSES = (44.0, 20.0), (24.0, 16.0), 1, 0.9, 3
CORNERS = [32.0, 12.0, 56.0, 28.0]
Tables = dict[str, Array]


def level(stride: int) -> tuple[int, Array]:
    """Returns the row of the cell that holds the centre, and the corners of all cells `(A, 2)`."""
    n = SIDE // stride
    y, x = np.divmod(np.arange(n * n), n)
    return int(CENTRE[1] // stride) * n + int(CENTRE[0] // stride), np.stack([x, y], 1) * float(stride)


def grids(*strides: int) -> tuple[int, Array, Array]:
    """Returns the row that is responsible in all grids (that of the first), the corners of all cells, their strides."""
    corners = [level(s)[1] for s in strides]
    return level(strides[0])[0], np.concatenate(corners), np.repeat(strides, [len(c) for c in corners])


def quiet(n: int, k: int, rng: int = 0) -> Array:
    return np.random.default_rng(rng).uniform(0, 0.005, (n, k))


def yolo(*, objectness: bool, per_cell: int, raw: bool = False, scale: float = 1.0, transposed: bool = False) -> Tables:
    row, corners, strides = grids(8, 16, 32)
    row, corners, strides = row * per_cell, np.repeat(corners, per_cell, 0), np.repeat(strides, per_cell)
    table = quiet(len(corners), 4 + objectness + N_CLASSES)
    table[:, :2], table[:, 2:4] = corners + strides[:, None] / 2, 8
    table[row, :4] = [*CENTRE, *SIZE]
    if raw:
        table[:, :2] = (table[:, :2] - corners) / strides[:, None]
        table[:, 2:4] = np.log(table[:, 2:4] / strides[:, None])
    table[:, :4] *= scale
    table[row, 4 + objectness + LABEL] = SCORE
    if objectness:
        table[:, 4] = 0.01
        table[row, 4] = 1.0
    return {"output0": table.T if transposed else table}


def bins(distance: float) -> Array:
    """Returns logits of eight bins whose mean is a distance."""
    low = int(distance)
    shares = np.full(8, 1e-9)
    shares[low], shares[low + 1] = 1 - (distance - low) + 1e-9, distance - low + 1e-9
    return np.log(shares)


def sides(point: Array, stride: float) -> list[float]:
    low, high = np.array(CORNERS[:2]), np.array(CORNERS[2:])
    return [float(v) for v in np.concatenate([point - low, high - point]) / stride]


def nanodet_plus() -> Tables:
    row, corners, strides = grids(8, 16, 32)
    table = np.concatenate([quiet(len(corners), N_CLASSES), np.full((len(corners), 32), -1.5)], 1)
    table[row, LABEL] = SCORE
    table[row, N_CLASSES:] = np.concatenate([bins(d) for d in sides(corners[row], 8)])
    del strides
    return {"output": table}


def levels(kind: str) -> Tables:
    made: Tables = {}
    for stride in (8, 16, 32):
        row, corners = level(stride)
        per_cell = 2 if kind == "scrfd" else 1
        n = len(corners) * per_cell
        scores = quiet(n, 1 if kind in ("yunet", "scrfd") else N_CLASSES, stride)
        boxes = np.full((n, 32 if kind == "nanodet" else 4), 0.3 if kind == "scrfd" else -0.5)
        if stride == 8:
            scores[row * per_cell, min(LABEL, scores.shape[1] - 1)] = SCORE**2 if kind == "fcos" else SCORE
            if kind == "yunet":
                place = (np.array(CENTRE) - corners[row]) / stride
                boxes[row] = [*place, *np.log(np.array(SIZE) / stride)]
            elif kind == "nanodet":
                boxes[row] = np.concatenate([bins(d) for d in sides(corners[row] + stride / 2, stride)])
            else:
                offset = 0.0 if kind == "scrfd" else stride / 2
                boxes[row * per_cell] = sides(corners[row] + offset, stride)
        if kind == "fcos":
            boxes = np.abs(boxes)
        made |= {f"cls_{stride}": scores, f"bbox_{stride}": boxes}
        if kind in ("yunet", "fcos"):
            sure = np.full((n, 1), 0.01)
            sure[row] = (SCORE if kind == "yunet" else 1.0) if stride == 8 else 0.01
            made |= {("obj" if kind == "yunet" else "centerness") + f"_{stride}": sure}
        if kind == "yunet":
            made[f"kps_{stride}"] = np.random.default_rng(0).normal(size=(n, 10))
    return made


def pair(kind: str) -> Tables:
    n = 150 if kind == "ssd" else 100
    rng = np.random.default_rng(0)
    centres, sizes = rng.uniform(0.2, 0.8, (n, 2)), rng.uniform(0.1, 0.2, (n, 2))
    centres[7], sizes[7] = np.array(CENTRE) / SIDE, np.array(SIZE) / SIDE
    scores = quiet(n, N_CLASSES)
    scores[7, LABEL] = SCORE
    boxes = np.concatenate([centres, sizes], 1)
    if kind == "queries":
        return {"output0": np.concatenate([boxes, scores], 1)}
    if kind == "detr":
        return {"logits": np.log(scores / (1 - scores)), "pred_boxes": boxes}
    corners = np.concatenate([centres - sizes / 2, centres + sizes / 2], 1)
    return {"scores": np.concatenate([1 - scores.sum(1, keepdims=True), scores], 1), "boxes": corners}


def chosen(kind: str) -> Tables:
    rows = np.zeros((30, 6))
    rows[:, :4] = [20, 20, 40, 40]
    rows[1] = [*CORNERS, SCORE, LABEL]
    if kind == "rows":
        return {"output0": rows}
    boxes = rows[:, [1, 0, 3, 2]] / SIDE
    return {"detection_boxes": boxes, "detection_scores": rows[:, 4], "detection_classes": rows[:, 5]}


def fastestdet() -> Tables:
    n = SIDE // 16
    x, y = int(CENTRE[0] // 16), int(CENTRE[1] // 16)
    table = np.zeros((5 + N_CLASSES, n, n))
    table[0], table[5:] = 0.0001, 1 / N_CLASSES
    table[0, y, x], table[5:, y, x] = SCORE, 0.0
    table[5 + LABEL, y, x] = 1.0
    place, share = np.array(CENTRE) / 16 - (x, y), np.array(SIZE) / SIDE
    table[1:3, y, x], table[3:5, y, x] = np.arctanh(place), np.log(share / (1 - share))
    return {"out": table}


def yolo_fastest() -> Tables:
    row, corners, _ = grids(16, 32)
    table = np.zeros((len(corners), 15 + 4))
    table[:, 15:] = 0.25
    anchor = np.array([37.88, 51.48])
    place = ((np.array(CENTRE) - corners[row]) / 16 + 0.5) / 2
    table[row, 4:8] = [*place, *(np.sqrt(np.array(SIZE) / anchor) / 2)]
    table[row, 13] = SCORE
    table[row, 15:] = np.eye(4)[LABEL]
    return {"out": table}


def text() -> Tables:
    table = np.zeros((1, SIDE, SIDE))
    table[0, int(CORNERS[1]) : int(CORNERS[3]), int(CORNERS[0]) : int(CORNERS[2])] = SCORE
    return {"out": table}


CASES: dict[str, tuple[Callable[[], Tables], str, str, dict[str, Any]]] = {
    "YOLOv8, v9, v11, v12": (lambda: yolo(objectness=False, per_cell=1, transposed=True), "yolov8", "auto", {}),
    "YOLOv8, shares of the image": (
        lambda: yolo(objectness=False, per_cell=1, scale=1 / SIDE, transposed=True), "yolov8", "auto", {}),
    "YOLOv5, v7": (lambda: yolo(objectness=True, per_cell=3), "yolov5", "auto", {}),
    "YOLOX": (lambda: yolo(objectness=True, per_cell=1, raw=True), "yolox", "auto", {}),
    "YOLOX, decoded": (lambda: yolo(objectness=True, per_cell=1), "yolox", "auto", {}),
    "NanoDet-Plus": (nanodet_plus, "nanodet-plus", "auto", {}),
    "YuNet": (lambda: levels("yunet"), "levels", "auto", {"label": 0}),
    "SCRFD": (lambda: levels("scrfd"), "levels", "auto", {"label": 0}),
    "NanoDet, PicoDet": (lambda: levels("nanodet"), "levels", "auto", {}),
    "FCOS": (lambda: levels("fcos"), "levels", "auto", {}),
    "SSD, UltraFace": (lambda: pair("ssd"), "ssd", "auto", {}),
    "DETR": (lambda: pair("detr"), "detr", "auto", {}),
    "RT-DETR": (lambda: pair("queries"), "detr", "auto", {}),
    "YOLOv10": (lambda: chosen("rows"), "end2end", "auto", {}),
    "TensorFlow": (lambda: chosen("three"), "end2end", "auto", {}),
    "FastestDet": (fastestdet, "fastestdet", "auto", {}),
    "Yolo-FastestV2": (yolo_fastest, "yolo-fastest", "auto", {}),
    "DB text": (text, "map", "map", {"label": 0}),
}  # fmt: skip


def graph_of(tables: Tables) -> ModelGraph:
    """Returns a model of images whose outputs are given tables, whatever the image."""
    outputs = ", ".join(f"float[1, {', '.join(map(str, t.shape))}] {name}" for name, t in tables.items())
    body = " ".join(f"{name} = Add(t_{name}, m)" for name in tables)
    constants = {f"t_{name}": t[None].astype(np.float32) for name, t in tables.items()}
    text = f"""net (float[1, 3, {SIDE}, {SIDE}] x) => ({outputs}) {{
        r = ReduceMean <keepdims = 0> (x)  m = Mul(r, none)  {body} }}"""
    return build(text, none=np.float32(0), **constants)


@pytest.mark.parametrize("name", CASES)
def test_a_box_is_read_as_it_was_written(name: str) -> None:
    make, layout, asked, said = CASES[name]
    graph = graph_of(make())
    read = find_layout(graph, measured(graph), asked)
    assert read is not None
    option, found = read
    assert found.name == layout
    assert find_layout(graph, measured(graph), option) is not None, "what the run says can be asked for"
    task = find_task(graph, "detection", layout=asked)
    assert f"(layout {option}" in described(task)
    x = np.zeros((1, 3, SIDE, SIDE), np.float32)
    (boxes,) = predict_heads(graph, graph.proto, x, task.heads)[-1]
    best = boxes[0]
    assert best["box"] == pytest.approx(CORNERS, abs=0.05)
    assert best["score"] == pytest.approx(said.get("score", SCORE), abs=0.01)
    assert best["label"] == said.get("label", LABEL)
    assert not (boxes["score"][1:] > 0.3).any()


def test_boxes_that_enter_a_suppression_are_read_there() -> None:
    table = pair("ssd")
    centres = (table["boxes"][:, :2] + table["boxes"][:, 2:]) / 2 * SIDE
    sizes = (table["boxes"][:, 2:] - table["boxes"][:, :2]) * SIDE
    graph = build(
        f"""net (float[1, 3, {SIDE}, {SIDE}] x) => (int64[k, 3] chosen) {{
            r = ReduceMean <keepdims = 0> (x)  m = Mul(r, none)
            boxes = Add(b, m)  scores = Add(s, m)
            chosen = NonMaxSuppression <center_point_box = 1> (boxes, scores, most, iou, least) }}""",
        none=np.float32(0), b=np.concatenate([centres, sizes], 1)[None].astype(np.float32),
        s=table["scores"].T[None, 1:].astype(np.float32), most=np.array([10]), iou=np.float32([0.5]),
        least=np.float32([0.3]),
    )  # fmt: skip
    task = find_task(graph, "detection")
    assert {head.name for head in task.heads} == {"boxes", "scores", "detections"}
    (boxes,) = predict_heads(graph, graph.proto, np.zeros((1, 3, SIDE, SIDE), np.float32), task.heads)[-1]
    assert boxes[0]["box"] == pytest.approx(CORNERS, abs=0.05)
    assert boxes[0]["label"] == LABEL


def test_landmarks_segments_and_unknown_outputs_are_no_detections() -> None:
    rng = np.random.default_rng(0)
    for tables in (
        {"mask": rng.normal(size=(5, 16, 16))},
        {"points": rng.normal(size=(98, 2))},
        {"loc": rng.normal(size=(420, 4)), "conf": rng.uniform(size=(420, 2))},  # relative to anchors nobody knows
        {"a": rng.normal(size=(7, 9))},
    ):
        graph = graph_of(tables)
        assert find_layout(graph, measured(graph)) is None
        assert find_task(graph).name != "detection"


def test_a_layout_that_does_not_fit_is_refused() -> None:
    graph = graph_of({"a": np.zeros((7, 9))})
    with pytest.raises(DataError, match=r"must have the layout 'yolo' to be read as detections, got a \(1, 7, 9\)"):
        find_task(graph, layout="yolo")
    with pytest.raises(DataError, match=r"`layout` must be auto or one of .*, got 'yollo'") as caught:
        find_task(graph, layout="yollo")
    assert "yolo" in str(caught.value.hint)


def test_detections_have_no_weight() -> None:
    graph = graph_of(yolo(objectness=False, per_cell=1, transposed=True))
    weighed = find_task(graph, "detection", weights={"output0": 2.0})
    assert [head.weight for head in weighed.heads] == [2.0, 2.0, 2.0, 0.0]
    with pytest.raises(DataError, match=r"must name outputs that .* is scored at, got 'detections'"):
        find_task(graph, "detection", weights={"detections": 2.0})


def test_names_in_the_file_tell_scores_from_what_follows_them() -> None:
    tables = yolo(objectness=False, per_cell=1, transposed=True)
    masks = np.concatenate([tables["output0"], np.ones((6, tables["output0"].shape[1]))])
    graph = graph_of({"output0": masks})
    entry = graph.proto.metadata_props.add()
    entry.key, entry.value = "names", "{0: 'cat', 1: 'dog', 2: 'bird'}"
    task = find_task(graph, "detection")
    assert task.names == ("cat", "dog", "bird")
    assert task.layout.n_classes == 3
    entry.value = "__import__('os').getcwd()"
    assert find_task(graph, "detection").names == ()


def test_what_lies_beside_detections_is_compared_too() -> None:
    tables = levels("yunet")
    graph = graph_of(tables)
    task = find_task(graph)
    assert {head.name for head in task.heads} == {*tables, "detections"}
    rows = yolo(objectness=False, per_cell=1, transposed=True)["output0"]
    pose = np.concatenate([rows[:5], np.random.default_rng(0).normal(size=(51, rows.shape[1]))])
    graph = graph_of({"output0": pose})
    entry = graph.proto.metadata_props.add()
    entry.key, entry.value = "names", "{0: 'person'}"
    parts = {head.part: head.columns for head in find_task(graph).heads if head.part}
    assert parts == {"centres": (1, 0, 2), "sizes": (1, 2, 4), "scores": (1, 4, 5), "others": (1, 5, 56)}
