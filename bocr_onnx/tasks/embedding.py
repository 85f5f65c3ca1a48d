"""Embeddings: vectors whose directions count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bocr_onnx.graph import Array
from bocr_onnx.runtime import Head, Outputs
from bocr_onnx.tasks.generic import Generic
from bocr_onnx.tasks.score import Score

MAX_RETRIEVED = 2000
"""Images among which a nearest neighbour is looked for."""


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

    def learns(self, labels: Array | None) -> None:
        """Returns None: the original is all there is to learn from."""
        del labels

    def figures(self, outputs: Outputs, reference: Outputs) -> tuple[dict[str, float], ...]:
        """Returns the mean cosine, and the share of images whose nearest neighbour among the others is the same."""
        return tuple(
            {"cosine": float(_cosine(o, r).mean()), "retrieval agreement": float(np.mean(_nearest(o) == _nearest(r)))}
            for o, r in zip(outputs, reference, strict=True)
        )

    def score(self, outputs: Outputs, truth: Outputs) -> Score:
        """Returns the mean cosine, the mean over heads; below zero counts as zero."""
        values = [float(_cosine(o, t).mean()) for o, t in zip(outputs, truth, strict=True)]
        return Score(min(max(float(np.mean(values)), 0.0), 1.0), len(truth[0]))


def _nearest(vectors: Array) -> Array:
    """Returns the nearest other one of each vector, by cosine."""
    flat = vectors[:MAX_RETRIEVED].reshape(len(vectors[:MAX_RETRIEVED]), -1).astype(np.float64)
    flat = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-30)
    near = flat @ flat.T
    np.fill_diagonal(near, -np.inf)
    return np.asarray(np.argmax(near, axis=1))


def _cosine(outputs: Array, reference: Array) -> Array:
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (outputs, reference))
    return np.asarray((a * b).sum(axis=1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-30))
