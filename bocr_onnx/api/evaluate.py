"""The score of a model on images: against labels, or what its original says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from bocr_onnx.graph import ModelGraph
from bocr_onnx.options import EvaluateOptions, keywords
from bocr_onnx.pipeline.model import read_like
from bocr_onnx.pipeline.scored import Scored, open_scored
from bocr_onnx.progress import shown
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
        against: The original it is compared with; None without.
        original: Score of the original on the same images; None where it is the truth itself.
        agreement: Score of the model where what the original says counts as the truth; None without an original.
    """

    model: str
    score: Score
    preprocessing: str
    n_images: int
    metric: str = "top-1"
    against: str | None = None
    original: Score | None = None
    agreement: Score | None = None

    def as_json(self) -> dict[str, Any]:
        """Returns what ``bocr-onnx evaluate --json`` prints."""
        compared = {"original": self.original, "agreement": self.agreement}
        return {
            "schema": 1,
            "model": self.model,
            "accuracy": self.score.value,
            "stderr": self.score.stderr,
            "n_images": self.n_images,
            "metric": self.metric,
            "preprocessing": self.preprocessing,
            "against": self.against,
            **{name: score and {"value": score.value, "stderr": score.stderr} for name, score in compared.items()},
        }


@keywords(EvaluateOptions)
def evaluate(options: EvaluateOptions) -> Evaluated:
    """Returns the score of a model on images; of a folder with train/ and val/, on val/.

    With `against` labels are not needed: the model is then scored by what the original says.

    Args: from the record.

    Raises:
        BocrError: Model or data cannot be used.
    """
    watched, against = shown(options.progress), options.against
    scored = open_scored(options, against or options.model, options.data, labelled=against is None)
    graph = scored.graph if against is None else read_like(options.model, scored.graph, outputs=True)
    with watched.task("Scoring") as update:
        own = scored.outputs(graph, update)
    if against is None:
        return _evaluated(scored, graph, scored.task.score(own, scored.truth(own)))
    with watched.task("Scoring the original") as update:
        first = scored.outputs(scored.graph, update)
    task, truth = scored.task, scored.truth(first)
    found = replace(_evaluated(scored, graph, task.score(own, truth)), against=scored.graph.label)
    if found.metric == task.metric(labelled=False):
        return replace(found, agreement=found.score)
    return replace(found, original=task.score(first, truth), agreement=task.score(own, task.truth(first, None)))


def _evaluated(scored: Scored, graph: ModelGraph, score: Score) -> Evaluated:
    return Evaluated(graph.label, score, scored.data.preprocessing.name, len(scored.images), scored.metric)
