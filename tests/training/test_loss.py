from __future__ import annotations

import numpy as np
import pytest
import torch

from bocr_onnx.errors import DataError
from bocr_onnx.options import FinetuneSettings
from bocr_onnx.training.loss import as_logits, finetune_loss

Z = torch.tensor([[1.0, 2.0, 0.0], [0.0, -1.0, 3.0]])
T = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
Y = torch.tensor([1, 2])


def loss(
    z: list[torch.Tensor], t: list[torch.Tensor], labels: torch.Tensor | None = None, activation: str = ""
) -> float:
    settings = FinetuneSettings(temperature=2.0, label_weight=0.25)
    return float(finetune_loss(z, t, labels, settings, activation=activation))


def by_hand(z: torch.Tensor, t: torch.Tensor) -> float:
    p, q = torch.softmax(t / 2, 1), torch.softmax(z / 2, 1)
    return float(4 * (p * (p / q).log()).sum(1).mean())


def test_without_labels_it_is_the_divergence_from_the_teacher() -> None:
    assert loss([Z], [T]) == pytest.approx(by_hand(Z, T), rel=1e-5)
    assert loss([T], [T]) == pytest.approx(0.0, abs=1e-6)


def test_labels_share_by_their_weight() -> None:
    cross = -float(torch.log_softmax(Z, 1)[[0, 1], Y].mean())
    assert loss([Z], [T], Y) == pytest.approx(0.75 * by_hand(Z, T) + 0.25 * cross, rel=1e-5)


def test_probabilities_are_taken_back_to_logits() -> None:
    found = loss([torch.softmax(Z, 1)], [torch.softmax(T, 1)], Y, "Softmax")
    assert found == pytest.approx(loss([Z], [T], Y), rel=1e-5)


def test_a_probability_of_zero_keeps_the_loss_finite() -> None:
    z = torch.tensor([[1.0, 0.0]], requires_grad=True)
    value = finetune_loss([z], [torch.tensor([[0.5, 0.5]])], None, FinetuneSettings(), activation="Softmax")
    value.backward()
    assert bool(torch.isfinite(value))
    assert z.grad is not None
    assert bool(torch.isfinite(z.grad).all())


def test_other_outputs_are_regressed_in_units_of_the_teachers_variance() -> None:
    t = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    scale = float(t.var(correction=0))
    assert loss([t + 0.5], [t]) == pytest.approx(0.25 / scale, rel=1e-4)
    assert loss([Z, t + 0.5], [T, t]) == pytest.approx((by_hand(Z, T) + 0.25 / scale) / 2, rel=1e-4)


def test_labels_without_classes_are_an_error() -> None:
    image = torch.zeros(2, 3, 4, 4)
    with pytest.raises(DataError, match="labels must come with a first output of one number per class"):
        loss([image], [image], Y)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1, 1)])
def test_one_number_per_class_is_logits(shape: tuple[int, ...]) -> None:
    found = as_logits(Z.reshape(shape), probabilities=False)
    assert found is not None
    assert torch.equal(found, Z)


@pytest.mark.parametrize("shape", [(2, 1), (6,), (2, 3, 2)])
def test_other_shapes_are_not(shape: tuple[int, ...]) -> None:
    assert as_logits(torch.zeros(shape), probabilities=False) is None


MASKS = torch.tensor([[[0, 1], [2, 2]], [[1, 1], [255, 0]]])


def cross_entropy(scores: torch.Tensor) -> float:
    """Returns the mean over the positions that somebody drew, by hand, `(N, C, H, W)` scores."""
    found = torch.log_softmax(scores, 1)
    return -float(np.mean([found[n, MASKS[n, i, j], i, j] for n, i, j in np.ndindex(2, 2, 2) if MASKS[n, i, j] != 255]))


def test_masks_are_classes_at_every_position_that_somebody_drew() -> None:
    scores = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    expected = pytest.approx(0.25 * cross_entropy(scores), rel=1e-4)
    assert loss([scores], [scores], MASKS) == expected
    assert loss([scores.movedim(1, -1)], [scores.movedim(1, -1)], MASKS) == expected
    probable = torch.softmax(scores, 1)
    assert loss([probable], [probable], MASKS, "Softmax") == expected


def test_numbers_are_a_squared_distance() -> None:
    y = torch.tensor([[1.0, 2.0, 1.0], [0.0, 0.0, 2.0]])
    scale = float(y.var(correction=0))
    assert loss([Z], [Z], y) == pytest.approx(0.25 * float(((Z - y) ** 2).mean()) / scale, rel=1e-4)


def test_a_yes_or_no_is_binary_cross_entropy() -> None:
    z, y = torch.tensor([[2.0], [-1.0]]), torch.tensor([1, 0])
    p = torch.sigmoid(z)
    expected = pytest.approx(-0.25 * float((p[0].log() + (1 - p[1]).log()) / 2), rel=1e-4)
    assert loss([z], [z], y) == expected
    assert loss([p], [p], y, "Sigmoid") == expected
