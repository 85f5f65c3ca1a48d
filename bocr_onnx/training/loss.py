"""What finetuning minimizes.

Notation: z logits of the student, t of the teacher, y labels, T temperature, lambda the weight of the labels.

    classifier (first output `(N, K)`, K > 1):
        L = (1 - lambda) T^2 KL(softmax(t / T) || softmax(z / T)) + lambda CE(z, y)
    any other floating output, or part of one; w how much a place counts, 1 or the teacher's score there:
        L = sum w (z - t)^2 / sum w (t - mean_w t)^2
    feature maps f, g of student and teacher that the cut left whole:
        L + weight * mean over maps of mean (f - g)^2 / var(g)

Outputs after a Softmax are probabilities; their logarithm serves as logits. A model of several outputs learns
the weighted mean over all of them, so that none drifts.

References:
    Hinton, Vinyals, Dean: Distilling the knowledge in a neural network, 2015, section 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from bocr_onnx.errors import DataError
from bocr_onnx.options import FinetuneSettings
from bocr_onnx.tasks.segmentation import UNLABELLED


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
    activation: str,
    weights: Sequence[float] = (),
    sure: Sequence[Tensor | None] = (),
    label_loss: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Returns the loss of a batch, a scalar.

    Args:
        student: Outputs of the student.
        teacher: Outputs of the teacher, the same number and shapes.
        labels: Classes `(N,)` or masks of them `(N, H, W)`, int64; numbers `(N,)` or `(N, K)`, float32; or None.
        settings: Temperature and weights are read.
        activation: Operator that computes the first output; Softmax and Sigmoid give probabilities.
        weights: How much each output counts; all alike where empty.
        label_loss: What labels say; the loss of their kind where None.
        sure: For each output how much its places count, broadcast to its shape; None where all count alike.

    Raises:
        DataError: Labels are given that do not fit the first output.
    """
    weights, sure = weights or (1.0,) * len(student), sure or (None,) * len(student)
    rows = list(zip(student, teacher, sure, weights, strict=True))
    terms = [(_distance(z, t, s), w) for z, t, s, w in rows[1:] if z.is_floating_point() and w > 0]
    z = as_logits(student[0], probabilities=activation == "Softmax")
    t = as_logits(teacher[0], probabilities=activation == "Softmax")
    if z is None or t is None or (labels is not None and labels.is_floating_point()):
        first = _distance(student[0], teacher[0], sure[0])
    else:
        first = _divergence(z, t, settings.temperature)
    if labels is not None:
        own = label_loss(labels) if label_loss else _label_loss(student[0], labels, settings, activation)
        first = (1 - settings.label_weight) * first + settings.label_weight * own
    terms = [(first, weights[0]), *terms]
    return torch.stack([term * w for term, w in terms]).sum() / sum(w for _, w in terms)


def _label_loss(output: Tensor, labels: Tensor, settings: FinetuneSettings, activation: str) -> Tensor:
    """Returns the loss against labels: squared distance to numbers, cross-entropy of classes at every position."""
    if labels.is_floating_point():
        return _distance(output, labels.reshape(output.shape))
    if output.numel() == labels.numel():
        wanted = labels.reshape(output.shape).to(output.dtype)
        if activation == "Sigmoid":
            return functional.binary_cross_entropy(output.clamp(0, 1), wanted)
        return functional.binary_cross_entropy_with_logits(output, wanted)
    flat = output.flatten(1) if labels.dim() == 1 and prod(output.shape[2:]) == 1 else output
    z = flat if flat.shape[2:] == labels.shape[1:] else flat.movedim(-1, 1)
    if z.dim() < 2 or z.shape[2:] != labels.shape[1:]:
        raise DataError(
            f"labels must come with a first output of one number per class, got shape {tuple(output.shape)} "
            f"for labels of shape {tuple(labels.shape)}"
        )
    z = torch.log(z.clamp_min(torch.finfo(z.dtype).tiny)) if activation == "Softmax" else z
    ignored = UNLABELLED if labels.dim() > 1 else -1
    return functional.cross_entropy(z, labels, ignore_index=ignored, label_smoothing=settings.label_smoothing)


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


def _distance(z: Tensor, t: Tensor, sure: Tensor | None = None) -> Tensor:
    tiny = torch.finfo(t.dtype).tiny
    if sure is None:
        return functional.mse_loss(z, t) / t.var(correction=0).clamp_min(tiny)
    share = (sure / sure.sum().clamp_min(tiny)).expand_as(t)
    centred = t - (share * t).sum() / share.sum().clamp_min(tiny)
    return (share * (z - t) ** 2).sum() / (share * centred**2).sum().clamp_min(tiny)
