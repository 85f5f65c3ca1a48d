"""Boxes of objects as labels: their record, and where they come to lie when an image is preprocessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from bocr_onnx.data.preprocessing import Preprocessing
from bocr_onnx.data.samples import Samples, numbered_classes
from bocr_onnx.data.split import Split
from bocr_onnx.errors import DataError, did_you_mean

BOX = np.dtype(
    [
        ("box", np.float32, 4),
        ("score", np.float32),
        ("label", np.int32),
        ("crowd", np.bool_),
        ("size", np.int32, 2),
    ]
)
"""A box of an image, ``x1, y1, x2, y2`` in pixels, its corners at the upper left and the lower right; its score in
[0, 1]; its class; whether it stands for many that nobody drew; width and height of the image it was drawn in."""

NOTHING = -1
"""Label of a record that only fills up an array, since images have different numbers of boxes."""

Boxes = npt.NDArray[np.void]
"""`(N, M)` of `BOX`."""


def are_boxes(labels: npt.NDArray[np.generic] | None) -> bool:
    """Returns whether labels are boxes."""
    return labels is not None and labels.dtype == BOX


def fit_boxes(samples: Samples, preprocessing: Preprocessing, names: Sequence[str] = ()) -> Samples:
    """Returns samples whose boxes are in pixels of the preprocessed image, as they are where they have no boxes.

    Boxes whose centre is cut off are dropped; the others end where the image ends.

    Args:
        samples: Images.
        preprocessing: What they go through.
        names: Names of the model's classes, where it has any; those of the labels are found among them.

    Raises:
        DataError: A class of the labels is none of the model's.
    """
    labels = samples.labels
    if labels is None or not are_boxes(labels):
        return samples
    made = labels.copy()
    for width, height in np.unique(labels["size"][labels["label"] != NOTHING], axis=0):
        rows = (labels["size"] == (width, height)).all(axis=-1)
        made["box"][rows], inside = preprocessing.place(labels["box"][rows], int(width), int(height))
        made["label"][rows] = np.where(inside, labels["label"][rows], NOTHING)
    if not names or tuple(names) == numbered_classes(len(names)):  # numbers name nothing
        return replace(samples, labels=made)
    numbers = np.array([*(_number(name, names, samples.name) for name in samples.classes), NOTHING], np.int32)
    made["label"] = numbers[made["label"]]  # the last one stands for NOTHING
    return replace(samples, labels=made, classes=tuple(names))


def fit_split(parts: Split, preprocessing: Preprocessing, names: Sequence[str] = ()) -> Split:
    """Returns a division of the data after `fit_boxes`."""
    return replace(
        parts,
        score=fit_boxes(parts.score, preprocessing, names),
        recovery=fit_boxes(parts.recovery, preprocessing, names),
        final=fit_boxes(parts.final, preprocessing, names),
        training=fit_boxes(parts.training, preprocessing, names),
    )


def _number(name: str, names: Sequence[str], source: str) -> int:
    if name not in names:
        raise DataError(
            f"`data={source}`: category {name!r} must be a class of the model", hint=did_you_mean(name, names)
        )
    return names.index(name)
