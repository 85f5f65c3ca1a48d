"""Average precision, computed by the reference implementation of the COCO metrics.

References:
    Lin et al.: Microsoft COCO: common objects in context, 2014; https://cocodataset.org/#detection-eval.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any, NamedTuple

import numpy as np

from bocr_onnx.data import NOTHING
from bocr_onnx.graph import Array
from bocr_onnx.tasks.detection.boxes import MAX_BOXES


class Precision(NamedTuple):
    """How well boxes are found, all in [0, 1].

    Attributes:
        mean: Average precision, the mean over classes and over overlaps from 0.5 to 0.95.
        half: At an overlap of 0.5.
        recall: Share of the true boxes that are found at an overlap of 0.5 or more.
    """

    mean: float
    half: float
    recall: float


def average_precision(found: Array, truth: Array) -> Precision:
    """Returns how well boxes are found.

    Args:
        found: Detections, `(N, MAX_BOXES)` of `BOX`.
        truth: True boxes, `(N, n)` of `BOX`; at least one.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        known, said = COCO(), COCO()
        known.dataset, said.dataset = _dataset(truth, truth), _dataset(found, truth)
        known.createIndex()
        said.createIndex()
        run = COCOeval(known, said, "bbox")
        run.params.maxDets = [1, 10, MAX_BOXES]
        run.params.areaRng, run.params.areaRngLbl = run.params.areaRng[:1], run.params.areaRngLbl[:1]
        run.evaluate()
        run.accumulate()
    precision, recall = run.eval["precision"][..., 0, -1], run.eval["recall"][..., 0, -1]
    return Precision(*(_mean(part) for part in (precision, precision[0], recall[0])))


def _mean(values: Array) -> float:
    """Returns the mean over the classes that the truth holds; others are -1."""
    return float(values[values > -1].mean()) if (values > -1).any() else 0.0


def _dataset(boxes: Array, truth: Array) -> dict[str, Any]:
    classes = np.unique(np.concatenate([boxes["label"].ravel(), truth["label"].ravel()]))
    annotations: list[dict[str, Any]] = []
    for image, column in zip(*np.nonzero(boxes["label"] != NOTHING), strict=True):
        row = boxes[image, column]
        x1, y1, x2, y2 = map(float, row["box"])
        annotations.append(
            {
                "id": len(annotations) + 1,  # its matches are told by number, and 0 means none
                "image_id": int(image),
                "category_id": int(row["label"]),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": max(x2 - x1, 0.0) * max(y2 - y1, 0.0),
                "score": float(row["score"]),
                "iscrowd": int(row["crowd"]),
            }
        )
    return {
        "images": [{"id": i} for i in range(len(boxes))],
        "categories": [{"id": int(label)} for label in classes if label != NOTHING],
        "annotations": annotations,
    }
