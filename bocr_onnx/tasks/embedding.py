"""Embeddings: vectors whose directions count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bocr_onnx.graph import Array
from bocr_onnx.runtime import Head, Outputs
from bocr_onnx.tasks.generic import Generic
from bocr_onnx.tasks.score import Score


@dataclass(frozen=True, slots=True)
class Embedding:
    """A model of one vector per image; the mean cosine between its vectors and the original's.

    Attributes:
        heads: The vectors.
        name: ``embedding``.
    """

    heads: tuple[Head, ...]
    name: str = "embedding"

    def metric(self, *, labelled: bool) -> str:
        """Returns what a score means; labels have no part in it."""
        del labelled
        return "cosine with the original"

    def check(self, outputs: Outputs, labels: Array | None, source: str) -> None:
        """Checks that an output differs between images; raises as `Generic.check`."""
        Generic(self.heads).check(outputs, labels, source)

    def truth(self, outputs: Outputs, labels: Array | None) -> Outputs:
        """Returns the original's vectors."""
        del labels
        return outputs

    def score(self, outputs: Outputs, truth: Outputs) -> Score:
        """Returns the mean cosine, the mean over heads; below zero counts as zero."""
        values = [float(_cosine(o, t).mean()) for o, t in zip(outputs, truth, strict=True)]
        return Score(min(max(float(np.mean(values)), 0.0), 1.0), len(truth[0]))


def _cosine(outputs: Array, reference: Array) -> Array:
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (outputs, reference))
    return np.asarray((a * b).sum(axis=1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-30))
