"""The score of a model on labelled images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bocr_onnx.data import fit_boxes
from bocr_onnx.errors import DataError
from bocr_onnx.options import EvaluateOptions, keywords
from bocr_onnx.pipeline.images import fit_images, load_images, open_pools
from bocr_onnx.pipeline.sized import read_for_images
from bocr_onnx.progress import Silent
from bocr_onnx.runtime import predict_heads
from bocr_onnx.tasks import Score, class_names, find_task


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A model's score on images.

    Attributes:
        model: The file.
        score: Its score.
        preprocessing: What turned images into inputs.
        n_images: How many there were.
        metric: What the score means.
    """

    model: str
    score: Score
    preprocessing: str
    n_images: int
    metric: str = "top-1"

    def as_json(self) -> dict[str, Any]:
        """Returns what ``bocr-onnx evaluate --json`` prints."""
        return {
            "schema": 1,
            "model": self.model,
            "accuracy": self.score.value,
            "stderr": self.score.stderr,
            "n_images": self.n_images,
            "metric": self.metric,
            "preprocessing": self.preprocessing,
        }


@keywords(EvaluateOptions)
def evaluate(options: EvaluateOptions) -> Evaluated:
    """Returns the score of a model on labelled images; of a folder with train/ and val/, on val/.

    Args: from the record.

    Raises:
        BocrError: Model or data cannot be used.
    """
    shown, chosen = options.progress or Silent(), options.preprocessing
    pools = open_pools(options, options.data)
    samples = pools.held_out or pools.single
    assert samples is not None
    sample = pools.train or samples
    graph = read_for_images(options.model, lambda: (pools, sample), chosen, options.input_shapes, note=shown.note)
    found = fit_images(graph, pools, sample, chosen, layout=options.layout)
    if samples.labels is None:
        raise DataError(
            f"`data={pools.path}` must have labels to evaluate on, got none", hint="See calibration/README.md"
        )
    samples = fit_boxes(samples, found.preprocessing, class_names(graph))
    images = load_images(graph, found, samples)
    task = find_task(graph, options.task, samples.labels, options.output_weights, options.layout)
    with shown.task("Scoring") as update:
        outputs = predict_heads(graph, graph.proto, images, task.heads, progress=update)
    task.check(outputs, samples.labels, pools.path)
    score = task.score(outputs, task.truth(outputs, samples.labels))
    return Evaluated(graph.label, score, found.preprocessing.name, len(images), task.metric(labelled=True))
