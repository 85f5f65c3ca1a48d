"""A model, images that it is scored on, and its task: what `evaluate`, `check` and the check of a device begin with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bocr_onnx.data import Labels, Source, fit_boxes
from bocr_onnx.errors import DataError
from bocr_onnx.graph import InputRows, ModelGraph
from bocr_onnx.options import TaskOptions
from bocr_onnx.pipeline.images import ModelData, fit_images, load_images, open_pools
from bocr_onnx.pipeline.sized import read_for_images
from bocr_onnx.progress import shown
from bocr_onnx.runtime import Outputs, Progress, predict_heads
from bocr_onnx.tasks import Task, class_names, find_task


@dataclass(frozen=True, slots=True)
class Scored:
    """What is scored.

    Attributes:
        graph: The model.
        data: Where the images come from, and what makes them its input.
        images: Its inputs.
        labels: The labels of the images; None without labels.
        task: What a score means.
    """

    graph: ModelGraph
    data: ModelData
    images: InputRows
    labels: Labels | None
    task: Task

    @property
    def metric(self) -> str:
        """Returns what a score on these images means."""
        return self.task.metric(labelled=self.labels is not None)

    def outputs(self, graph: ModelGraph, progress: Progress | None = None) -> Outputs:
        """Returns what the model, or another one with its interface, says of every image, in batches of its size."""
        sized = self.graph if graph.batch_is_symbolic() else graph
        return predict_heads(sized, graph.proto, self.images, self.task.heads, progress=progress)

    def truth(self, first: Outputs) -> Outputs:
        """Returns what outputs are scored against: the labels, or what this model says.

        Args:
            first: Outputs of this model.

        Raises:
            DataError: The labels are not what the task scores.
        """
        self.task.check(first, self.labels, self.data.pools.path)
        return self.task.truth(first, self.labels)


def open_scored(
    options: TaskOptions, model: str | Path, source: Source, *, labelled: bool = False, at_most: int | None = None
) -> Scored:
    """Returns a model with images; those of val/ of a folder with train/ and val/.

    Args:
        options: Say how images become inputs, and the task.
        model: The .onnx file.
        source: Where the images are.
        labelled: Whether images without labels are an error.
        at_most: Number of images; a fixed sample stands for more of them.

    Raises:
        BocrError: Model or data cannot be used.
    """
    watched, chosen = shown(options.progress), options.preprocessing
    pools = open_pools(options.task, source)
    samples = pools.held_out or pools.single
    assert samples is not None
    sample = pools.train or samples
    graph = read_for_images(model, lambda: (pools, sample), chosen, options.input_shapes, note=watched.note)
    data = fit_images(graph, pools, sample, chosen, layout=options.layout)
    if labelled and samples.labels is None:
        raise DataError(
            f"`data={pools.path}` must have labels to evaluate on, got none", hint="See calibration/README.md"
        )
    if at_most is not None and len(samples) > at_most:
        samples = samples.take(np.sort(np.random.default_rng(0).permutation(len(samples))[:at_most]))
    samples = fit_boxes(samples, data.preprocessing, class_names(graph))
    images = load_images(graph, data, samples)
    task = find_task(graph, options.task, samples.labels, options.output_weights, options.layout)
    return Scored(graph, data, images, samples.labels, task)
