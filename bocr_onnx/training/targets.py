"""Which tensors of the teacher a student learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bocr_onnx.graph import ModelGraph
from bocr_onnx.runtime import Columns, Head

LabelLoss = Callable[[Mapping[str, Tensor], Tensor], Tensor]
"""Returns a scalar from outputs by name and labels."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What a student learns.

    Attributes:
        heads: Tensors that the model is measured at; all outputs where there are none.
        label_loss: What labels say, instead of the loss of their kind.
    """

    heads: tuple[Head, ...] = ()
    label_loss: LabelLoss | None = None


def make_targets(graph: ModelGraph, heads: Sequence[Head]) -> tuple[Head, ...]:
    """Returns what is learnt: every output, with the weights of the heads; or the heads where they are not outputs.

    Heads inside of the graph, or of parts of outputs, stand for outputs that no gradient passes: boxes that were
    chosen, or numbers of several kinds in one tensor.

    Args:
        graph: The student.
        heads: Tensors that the model is measured at; none for all outputs.
    """
    compared = [head for head in heads if head.weight > 0]
    if any(head.columns is not None or head.name not in graph.outputs for head in compared):
        return tuple(compared)
    weights = {head.name: head.weight for head in heads}
    return tuple(Head(name, weight=weights.get(name, 1.0)) for name in graph.outputs)


def target_tensors(targets: Sequence[Head]) -> tuple[str, ...]:
    """Returns the tensors that targets are read from, each once."""
    names = [name for target in targets for name in (target.name, *(target.sure or ())[:1])]
    return tuple(dict.fromkeys(names))


def view(targets: Sequence[Head], tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """Returns the entries of each target, all of them."""
    return [_narrowed(tensors[t.name], t.columns, whole=t.whole) for t in targets]


def certainty(targets: Sequence[Head], tensors: Mapping[str, Tensor]) -> list[Tensor | None]:
    """Returns how much the places of each target count, in [0, 1]: the largest score of the teacher there."""
    return [_certainty(t, tensors) for t in targets]


def _certainty(target: Head, tensors: Mapping[str, Tensor]) -> Tensor | None:
    if target.sure is None or target.columns is None:
        return None
    name, columns = target.sure
    scores = _narrowed(tensors[name], columns, whole=target.whole).amax(_axis(columns, whole=target.whole))
    if bool((scores < 0).any() | (scores > 1).any()):
        scores = torch.sigmoid(scores)
    return scores.unsqueeze(_axis(target.columns, whole=target.whole))


def _narrowed(tensor: Tensor, columns: Columns | None, *, whole: bool) -> Tensor:
    if columns is None:
        return tensor
    return tensor.narrow(_axis(columns, whole=whole), columns.start, columns.stop - columns.start)


def _axis(columns: Columns, *, whole: bool) -> int:
    return columns.axis - whole
