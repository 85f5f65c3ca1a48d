"""What a task is: which tensors of a model it looks at, what their truth is, and what a score of them means."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from bocr_onnx.graph import Array
from bocr_onnx.runtime import Head, Outputs
from bocr_onnx.tasks.score import Score


class Task(Protocol):
    """A kind of model, a frozen dataclass. A further one is a module of this package and a row of `TASKS`."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def name(self) -> str:
        """Returns its name, as ``--task`` takes it."""
        ...

    @property
    def heads(self) -> tuple[Head, ...]:
        """Returns the tensors that it looks at."""
        ...

    def metric(self, *, labelled: bool) -> str:
        """Returns what a score means."""
        ...

    def check(self, outputs: Outputs, labels: Array | None, source: str) -> None:
        """Checks that outputs of the original and labels are what the task scores.

        Raises:
            DataError: They are not.
        """
        ...

    def truth(self, outputs: Outputs, labels: Array | None) -> Outputs:
        """Returns what outputs are scored against: labels, or what the original's own outputs say."""
        ...

    def learns(self, labels: Array | None) -> Array | None:
        """Returns the labels that finetuning learns from; None where it learns from the original alone."""
        ...

    def figures(self, outputs: Outputs, reference: Outputs) -> tuple[dict[str, float], ...]:
        """Returns what a user of each tensor wants to know beside its distortion from the original's, by name."""
        ...

    def score(self, outputs: Outputs, truth: Outputs) -> Score:
        """Returns a score in [0, 1], larger is better, with its standard error."""
        ...
