"""The score of a model on labelled images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bocr_onnx.options import EvaluateOptions, keywords
from bocr_onnx.pipeline.scored import open_scored
from bocr_onnx.progress import shown
from bocr_onnx.runtime import predict_heads
from bocr_onnx.tasks import Score


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
    watched = shown(options.progress)
    scored = open_scored(options, options.model, options.data, labelled=True)
    graph, images, task = scored.graph, scored.images, scored.task
    with watched.task("Scoring") as update:
        outputs = predict_heads(graph, graph.proto, images, task.heads, progress=update)
    task.check(outputs, scored.labels, scored.data.pools.path)
    score = task.score(outputs, task.truth(outputs, scored.labels))
    return Evaluated(graph.label, score, scored.data.preprocessing.name, len(images), task.metric(labelled=True))
