"""Any model: all floating outputs count, each by its distortion; no labels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bocr_onnx.errors import DataError
from bocr_onnx.graph import Array
from bocr_onnx.runtime import Head, Outputs
from bocr_onnx.tasks.score import Score, total_distortion, varies

MAX_PSNR = 100.0
"""dB; what equal pictures get."""


@dataclass(frozen=True, slots=True)
class Generic:
    """A model whose outputs are compared with the original's, whatever they are.

    The score, fidelity, is one minus the mean distortion of the outputs: 1 where all are equal, 0 where they are no
    nearer than the means of the original's.

    Attributes:
        heads: The outputs; or the tensors that enter a decision such as NonMaxSuppression or TopK.
        pictures: Those of them that are pictures.
        name: ``generic``.
    """

    heads: tuple[Head, ...]
    pictures: frozenset[str] = frozenset()
    name: str = "generic"

    def metric(self, *, labelled: bool) -> str:
        """Returns what a score means; labels have no part in it."""
        del labelled
        return "fidelity"

    def check(self, outputs: Outputs, labels: Array | None, source: str) -> None:
        """Checks that an output differs between images.

        Raises:
            DataError: None does.
        """
        del labels
        counted = [(head, output) for head, output in zip(self.heads, outputs, strict=True) if head.weight > 0]
        if not any(varies(output) for _, output in counted):
            names = ", ".join(head.title for head, _ in counted)
            raise DataError(
                f"`data={source}`: an output must differ between images to be scored, got constant {names}",
                hint="Are the images preprocessed as the model expects them? Try `preset=NAME` or `preprocess=FILE`.",
            )

    def truth(self, outputs: Outputs, labels: Array | None) -> Outputs:
        """Returns the original's outputs."""
        del labels
        return outputs

    def learns(self, labels: Array | None) -> None:
        """Returns None: the original is all there is to learn from."""
        del labels

    def figures(self, outputs: Outputs, reference: Outputs) -> tuple[dict[str, float], ...]:
        """Returns the peak signal-to-noise ratio of pictures, in dB; the peak is the range of the original's values."""
        pairs = zip(self.heads, outputs, reference, strict=True)
        return tuple({"PSNR": _psnr(o, r)} if head.name in self.pictures else {} for head, o, r in pairs)

    def score(self, outputs: Outputs, truth: Outputs) -> Score:
        """Returns the fidelity."""
        return Score(min(max(1 - total_distortion(outputs, truth, self.heads), 0.0), 1.0), len(truth[0]))


def _psnr(outputs: Array, reference: Array) -> float:
    wide = reference.astype(np.float64)
    error = float(np.mean((outputs - wide) ** 2))
    return min(10 * math.log10(max(float(np.ptp(wide)) ** 2, 1e-30) / max(error, 1e-30)), MAX_PSNR)
