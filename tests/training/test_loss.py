from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from bocr_onnx.errors import DataError
from bocr_onnx.graph import from_proto
from bocr_onnx.options import FinetuneSettings
from bocr_onnx.training.loss import as_logits, finetune_loss, gives_probabilities

Z = torch.tensor([[1.0, 2.0, 0.0], [0.0, -1.0, 3.0]])
T = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
Y = torch.tensor([1, 2])


def loss(z: list[torch.Tensor], t: list[torch.Tensor], labels: torch.Tensor | None = None, **kwargs: bool) -> float:
    settings = FinetuneSettings(temperature=2.0, label_weight=0.25)
    return float(finetune_loss(z, t, labels, settings, probabilities=kwargs.get("probabilities", False)))


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
    found = loss([torch.softmax(Z, 1)], [torch.softmax(T, 1)], Y, probabilities=True)
    assert found == pytest.approx(loss([Z], [T], Y), rel=1e-5)


def test_a_probability_of_zero_keeps_the_loss_finite() -> None:
    z = torch.tensor([[1.0, 0.0]], requires_grad=True)
    value = finetune_loss([z], [torch.tensor([[0.5, 0.5]])], None, FinetuneSettings(), probabilities=True)
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


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = Softmax (x)", True),
        ("s = Softmax (x) y = Flatten (s)", True),
        ("s = Softmax (x) y = Log (s)", False),
        ("y = LogSoftmax (x)", False),
        ("y = Relu (x)", False),
    ],
)
def test_a_softmax_at_the_end_is_seen(body: str, expected: bool) -> None:
    graph = from_proto(
        onnx.parser.parse_model(
            f'<ir_version: 8, opset_import: ["" : 17]> one (float[N, 3] x) => (float[N, 3] y) {{ {body} }}'
        )
    )
    assert gives_probabilities(graph, "y") is expected
    assert np.array(graph.shapes["y"])[1] == 3
