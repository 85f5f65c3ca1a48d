"""Score of a model on images: top-1 accuracy with labels, agreement with the original without."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx import ModelProto

from bocr_onnx.data import InputRows
from bocr_onnx.evaluation.moments import Progress, batch_size
from bocr_onnx.evaluation.session import open_session, run_session
from bocr_onnx.graph import ModelGraph

RUN_BATCH = 100


@dataclass(frozen=True, slots=True)
class Score:
    """A share of images, larger is better.

    Attributes:
        value: In [0, 1].
        n_samples: Images it was measured on.
    """

    value: float
    n_samples: int

    @property
    def stderr(self) -> float:
        """Returns the standard error of the share."""
        return math.sqrt(max(self.value * (1 - self.value), 1e-12) / max(self.n_samples, 1))


def predict(
    graph: ModelGraph,
    model: ModelProto | ort.InferenceSession,
    images: InputRows,
    *,
    rows: range | None = None,
    progress: Progress | None = None,
) -> npt.NDArray[np.float32]:
    """Returns the first output of a model for every image, shape `(n_images, ...)`.

    Args:
        graph: The original, which knows the interface.
        model: It, or a slim model of it.
        images: Preprocessed, first axis the images. With a batch baked into the model the last run is padded.
        rows: Rows of the images to use; all where None.
        progress: Told after each batch.
    """
    rows = rows or range(len(images))
    session = open_session(model) if isinstance(model, ModelProto) else model
    batch = batch_size(graph, RUN_BATCH)
    found = []
    for start in range(rows.start, rows.stop, batch):
        feed = images[start : min(start + batch, rows.stop)]
        n = len(feed)
        if n < batch and not graph.batch_is_symbolic():
            feed = np.concatenate([feed, np.repeat(feed[-1:], batch - n, axis=0)])
        out = run_session(session, {graph.inputs[0]: feed}, [graph.outputs[0]])[0]
        found.append(out[:n])
        if progress:
            progress(start + n - rows.start, len(rows))
    return np.concatenate(found)


def classes_of(outputs: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Returns the winning class of every image (and position), ties to the lower class.

    Args:
        outputs: Shape `(n_images, n_classes, ...)`; further axes of one entry are dropped.
    """
    return np.asarray(np.argmax(outputs.reshape(outputs.shape[0], outputs.shape[1], -1), axis=1).squeeze(-1))


def score_outputs(outputs: npt.NDArray[np.float32], truth: npt.NDArray[np.int64]) -> Score:
    """Returns the share of images whose winning class is the true one."""
    return Score(float(np.mean(classes_of(outputs) == truth)), len(truth))


def distortion(outputs: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]) -> float:
    """Returns how far outputs are from a reference: mean squared difference over the reference's variance.

    Zero is equal; one is as far as the mean of the reference would be. Finer than a share of images, and it needs
    no labels.
    """
    wide = reference.astype(np.float64)
    spread = float(np.mean((wide - wide.mean(axis=0)) ** 2))
    return float(np.mean((outputs.astype(np.float64) - wide) ** 2)) / max(spread, 1e-30)
