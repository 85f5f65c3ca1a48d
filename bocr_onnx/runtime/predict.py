"""Outputs of a model for many images, batch by batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx import ModelProto

from bocr_onnx.graph import InputRows, ModelGraph
from bocr_onnx.runtime.session import open_session, run_session

RUN_BATCH = 100

Progress = Callable[[int, int], None]
"""Told after each step how many of how many are done."""


def batch_size(graph: ModelGraph, wish: int = 50) -> int:
    """Returns how many images one run takes: `wish` where the model leaves its batch open."""
    return wish if graph.batch_is_symbolic() else graph.batch


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
