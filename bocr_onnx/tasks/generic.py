"""Any model: all floating outputs count, each by its distortion; no labels."""

from __future__ import annotations

from dataclasses import dataclass

from bocr_onnx.errors import DataError
from bocr_onnx.graph import Array
from bocr_onnx.runtime import Head, Outputs
from bocr_onnx.tasks.score import Score, total_distortion, varies


@dataclass(frozen=True, slots=True)
class Generic:
    """A model whose outputs are compared with the original's, whatever they are.

    The score, fidelity, is one minus the mean distortion of the outputs: 1 where all are equal, 0 where they are no
    nearer than the means of the original's.

    Attributes:
        heads: The outputs; the tensors behind a decision such as NonMaxSuppression or TopK.
        name: ``generic``.
    """

    heads: tuple[Head, ...]
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
            names = ", ".join(head.name for head, _ in counted)
            raise DataError(
                f"`data={source}`: an output must differ between images to be scored, got constant {names}",
                hint="Are the images preprocessed as the model expects them? Try `preset=NAME` or `preprocess=FILE`.",
            )

    def truth(self, outputs: Outputs, labels: Array | None) -> Outputs:
        """Returns the original's outputs."""
        del labels
        return outputs

    def figures(self, outputs: Outputs, reference: Outputs) -> tuple[dict[str, float], ...]:
        """Returns nothing beside the distortion."""
        del reference
        return tuple({} for _ in outputs)

    def score(self, outputs: Outputs, truth: Outputs) -> Score:
        """Returns the fidelity."""
        return Score(min(max(1 - total_distortion(outputs, truth, self.heads), 0.0), 1.0), len(truth[0]))
