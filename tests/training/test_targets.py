"""What a student learns: outputs, tensors inside, parts of tensors, places weighed by the teacher's scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bocr_onnx.options import FinetuneSettings
from bocr_onnx.runtime import Columns, Head
from bocr_onnx.training.loss import finetune_loss
from bocr_onnx.training.targets import certainty, make_targets, target_tensors, view
from tests.oracle import build

NET = "net (float[N, 4] x) => (float[N, 4] y, float[N, 3] z) { h = Relu(x)  y = Neg(h)  z = MatMul(h, w) }"
BOXES, SCORES = Columns(2, 0, 4), Columns(2, 4, 6)


def test_every_output_is_learnt_with_the_weight_of_its_head() -> None:
    graph = build(NET, w=(4, 3))
    targets = make_targets(graph, (Head("z", weight=2.0), Head("y", weight=0.0)))
    assert [(t.name, t.weight) for t in targets] == [("y", 0.0), ("z", 2.0)]
    assert [(t.name, t.weight) for t in make_targets(graph, ())] == [("y", 1.0), ("z", 1.0)]
    sampled = make_targets(graph, (Head("y", positions=np.array([0])),))
    assert sampled[0].positions is None  # all entries are learnt, whatever is looked at


def test_tensors_inside_and_parts_stand_for_the_outputs() -> None:
    graph = build(NET, w=(4, 3))
    inside = (Head("h"), Head("detections", weight=0.0))
    assert [t.name for t in make_targets(graph, inside)] == ["h"]
    parts = (Head("y", columns=Columns(1, 0, 2), part="boxes", sure=("z", Columns(1, 0, 3))),)
    targets = make_targets(graph, parts)
    assert targets == parts
    assert target_tensors(targets) == ("y", "z")
    y = torch.arange(8.0).reshape(2, 4)
    assert view(targets, {"y": y, "z": y})[0].tolist() == [[0, 1], [4, 5]]


def test_places_count_as_the_best_score_there() -> None:
    rows = torch.tensor([[[0.0, 0, 0, 0, 0.1, 0.7], [0.0, 0, 0, 0, 0.2, 0.1]]])
    boxes = Head("t", columns=BOXES, sure=("t", SCORES))
    (sure,) = certainty((boxes,), {"t": rows})
    assert sure is not None
    assert sure.shape == (1, 2, 1)
    assert sure.flatten().tolist() == pytest.approx([0.7, 0.2])
    (logits,) = certainty((boxes,), {"t": rows * 10 - 3})
    assert logits is not None
    assert logits.flatten().tolist() == pytest.approx([1 / (1 + np.exp(-4)), 1 / (1 + np.exp(1))])
    assert certainty((Head("t", columns=SCORES),), {"t": rows}) == [None]


def test_scores_may_lie_along_another_axis_and_batches_of_one_may_have_no_axis() -> None:
    boxes, scores = torch.zeros(1, 5, 4), torch.rand(1, 3, 5)
    head = Head("b", columns=BOXES, sure=("s", Columns(1, 0, 3)))
    (sure,) = certainty((head,), {"b": boxes, "s": scores})
    assert sure is not None
    assert torch.equal(sure, scores.amax(1)[..., None])
    whole = Head("t", columns=BOXES, sure=("t", SCORES), whole=True)
    rows = torch.rand(7, 6)
    assert torch.equal(view((whole,), {"t": rows})[0], rows[:, :4])
    (sure,) = certainty((whole,), {"t": rows})
    assert sure is not None
    assert torch.equal(sure, rows[:, 4:].amax(1, keepdim=True))


def test_an_error_where_the_teacher_sees_nothing_counts_for_little() -> None:
    teacher = torch.tensor([[[0.0, 2.0, 4.0, 6.0]]])
    sure = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
    settings = FinetuneSettings()

    def loss(place: int) -> float:
        student = teacher.clone()
        student[0, 0, place] += 1
        return float(finetune_loss([student], [teacher], None, settings, activation="", sure=[sure]))

    assert loss(0) == pytest.approx(0.5)  # half of 1, over a variance of 1 among the two
    assert loss(3) == 0.0


def test_outputs_count_as_their_weights_say() -> None:
    t = torch.tensor([[[0.0, 2.0]]])
    settings = FinetuneSettings()

    def loss(*weights: float) -> float:
        pairs = [t + 1, t + 2]
        return float(finetune_loss(pairs, [t, t], None, settings, activation="", weights=weights))

    assert loss() == pytest.approx(2.5)
    assert loss(3, 1) == pytest.approx(1.75)
    assert loss(1, 0) == pytest.approx(1.0)
