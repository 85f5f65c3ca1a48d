"""What finetuning minimizes.

Notation: z logits of the student, t of the teacher, y labels, T temperature, lambda the weight of the labels.

    classifier (first output `(N, K)`, K > 1):
        L = (1 - lambda) T^2 KL(softmax(t / T) || softmax(z / T)) + lambda CE(z, y)
    any other floating output:
        L = mean (z - t)^2 / var(t)
    feature maps f, g of student and teacher that the cut left whole:
        L + weight * mean over maps of mean (f - g)^2 / var(g)

Outputs after a Softmax are probabilities; their logarithm serves as logits. A model of several outputs learns
the mean over all of them, so that none drifts.

References:
    Hinton, Vinyals, Dean: Distilling the knowledge in a neural network, 2015, section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from bocr_onnx.errors import DataError
from bocr_onnx.graph import ModelGraph
from bocr_onnx.options import FinetuneSettings

_PASSING = frozenset({"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Dropout"})


def gives_probabilities(graph: ModelGraph, name: str) -> bool:
    """Returns whether a tensor is the result of a Softmax, perhaps in another shape."""
    while name in graph.producer:
        node = graph.nodes[graph.producer[name]]
        if node.op == "Softmax":
            return True
        if node.op not in _PASSING:
            return False
        name = node.input(0)
    return False


def as_logits(output: Tensor, *, probabilities: bool) -> Tensor | None:
    """Returns `(N, K)` logits, K > 1, or None where the output is of another kind.

    Args:
        output: Shape `(N, K)`, or `(N, K, 1, ...)`.
        probabilities: Whether it passed a Softmax.
    """
    if output.dim() < 2 or output.shape[1] < 2 or prod(output.shape[2:]) != 1:
        return None
    flat = output.flatten(1)
    return torch.log(flat.clamp_min(torch.finfo(flat.dtype).tiny)) if probabilities else flat


def finetune_loss(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    labels: Tensor | None,
    settings: FinetuneSettings,
    *,
    probabilities: bool,
) -> Tensor:
    """Returns the loss of a batch, a scalar.

    Args:
        student: Outputs of the student.
        teacher: Outputs of the teacher, the same number and shapes.
        labels: Shape `(N,)` int64, or None.
        settings: Temperature and weights are read.
        probabilities: Whether the first output passed a Softmax.

    Raises:
        DataError: Labels are given, but the first output does not hold one number per class.
    """
    terms = [_distance(z, t) for z, t in zip(student[1:], teacher[1:], strict=True) if z.is_floating_point()]
    z = as_logits(student[0], probabilities=probabilities)
    t = as_logits(teacher[0], probabilities=probabilities)
    if z is None or t is None:
        if labels is not None:
            raise DataError(
                f"labels must come with a first output of one number per class, got shape {tuple(student[0].shape)}"
            )
        return torch.stack([_distance(student[0], teacher[0]), *terms]).mean()
    first = _divergence(z, t, settings.temperature)
    if labels is not None:
        first = (1 - settings.label_weight) * first + settings.label_weight * functional.cross_entropy(
            z, labels, label_smoothing=settings.label_smoothing
        )
    return torch.stack([first, *terms]).mean()


def feature_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Returns the mean distance of feature maps, a scalar; each is measured in the teacher's variance.

    Args:
        student: At least one map.
        teacher: The same number and shapes.
    """
    return torch.stack([_distance(f, g) for f, g in zip(student, teacher, strict=True)]).mean()


def _divergence(z: Tensor, t: Tensor, temperature: float) -> Tensor:
    log_q = functional.log_softmax(z / temperature, 1)
    log_p = functional.log_softmax(t / temperature, 1)
    return temperature**2 * functional.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def _distance(z: Tensor, t: Tensor) -> Tensor:
    scale = t.var(correction=0).clamp_min(torch.finfo(t.dtype).tiny)
    return functional.mse_loss(z, t) / scale
