"""What a score and a distortion count, and on how many images."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bocr_onnx.runtime import WEIGHED, Columns, Head, predict
from bocr_onnx.tasks import classes_of, distortion, fidelity, score_outputs
from bocr_onnx.tasks.score import Score, varies
from tests.oracle import build, run


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_distortion_is_zero_at_the_reference_and_one_at_its_mean(offset: float) -> None:
    """However far the outputs, and each of them, lie from zero."""
    rng = np.random.default_rng(0)
    reference = (rng.standard_normal((200, 5)) + offset * np.arange(5)).astype(np.float32)
    assert distortion(reference, reference) == 0
    assert distortion(np.broadcast_to(reference.mean(axis=0), reference.shape), reference) == pytest.approx(1, rel=1e-3)
    moved = reference + np.float32(2) * reference.std()
    assert distortion(moved, reference) == pytest.approx(4 * reference.var() / reference.var(axis=0).mean(), rel=1e-3)


@pytest.mark.parametrize(("batch", "n_images"), [(4, 10), (4, 8), (4, 3), (1, 5)])
def test_a_batch_that_the_model_fixes_changes_no_output(batch: int, n_images: int) -> None:
    graph = build(f"m (float[{batch}, 3] x) => (float[{batch}, 2] y) {{ y = MatMul(x, w) }}", w=(3, 2))
    images = np.random.default_rng(1).standard_normal((n_images, 3)).astype(np.float32)
    weight = graph.operand((0, 1))
    assert weight is not None
    seen: list[tuple[int, int]] = []
    found = predict(graph, graph.proto, images, progress=lambda done, total: seen.append((done, total)))
    np.testing.assert_allclose(found, images @ weight, rtol=1e-5, atol=1e-6)
    assert seen[-1] == (n_images, n_images)


def test_many_images_are_run_in_order() -> None:
    graph = build("m (float[N, 3] x) => (float[N, 3] y) { y = Neg(x) }")
    images = np.random.default_rng(1).standard_normal((257, 3)).astype(np.float32)
    assert np.array_equal(predict(graph, graph.proto, images), -images)
    assert np.array_equal(run(graph.proto, {"x": images})[0], -images)


def test_ties_go_to_the_lower_class_and_further_axes_of_one_are_dropped() -> None:
    outputs = np.array([[1, 3, 3], [2, 2, 2], [0, 1, 5]], np.float32)
    assert classes_of(outputs).tolist() == [1, 0, 2]
    assert classes_of(outputs.reshape(3, 3, 1, 1)).tolist() == [1, 0, 2]
    found = score_outputs(outputs, np.array([1, 0, 0]))
    assert found.value == pytest.approx(2 / 3)
    assert found.n_samples == 3


def test_the_standard_error_is_that_of_a_share() -> None:
    assert Score(0.8, 100).stderr == pytest.approx(0.04)
    assert Score(0.8, 400).stderr == pytest.approx(0.02)
    assert 0 < Score(1.0, 100).stderr < 1e-6
    assert math.isfinite(Score(0.0, 0).stderr)


def test_places_count_as_much_as_the_reference_is_sure() -> None:
    rng = np.random.default_rng(0)
    reference = np.zeros((40, 6), WEIGHED)
    reference["value"], reference["sure"] = rng.standard_normal((40, 6)), 1.0
    reference["sure"][:, 3:] = 0.0
    wrong = reference.copy()
    wrong["value"][:, 3:] += 100
    assert distortion(wrong, reference) < 0.1
    wrong = reference.copy()
    wrong["value"][:, :3] += 1
    wrong["sure"] = 0.0  # it is the reference that says what counts
    plain = distortion(wrong["value"][:, :3], reference["value"][:, :3])
    assert distortion(wrong, reference) == pytest.approx(plain, rel=1e-3)
    (row,) = fidelity((Head("b"),), (wrong,), (reference,))
    assert row["distortion"] == pytest.approx(plain, rel=1e-3)
    assert row["correlation"] == pytest.approx(1.0)
    assert row["largest_error"] == pytest.approx(1.0)
    flat = reference.copy()
    flat["value"][:, :3] = 0.0
    assert not varies(flat[:, :3])


def test_a_place_of_boxes_counts_as_its_best_score() -> None:
    rng = np.random.default_rng(0)
    rows, scores = rng.random((2, 5, 4), np.float32), rng.random((2, 3, 5), np.float32)
    head = Head("b", columns=Columns(2, 0, 4), sure=("s", Columns(1, 0, 3)), positions=np.array([1, 19]))
    assert head.reads == ("b", "s")
    found = head.view(rows, scores)
    assert found["value"].tolist() == rows.reshape(2, 20)[:, [1, 19]].tolist()
    assert found["sure"].tolist() == scores.max(axis=1)[:, [0, 4]].tolist()
    logits = head.view(rows, 10 * scores - 5)
    assert logits["sure"] == pytest.approx(1 / (1 + np.exp(5 - 10 * scores.max(axis=1)[:, [0, 4]])), rel=1e-5)
    maps = rng.random((1, 6, 2, 2), np.float32)
    head = Head("m", columns=Columns(1, 2, 6), sure=("m", Columns(1, 0, 2)))
    found = head.view(maps)
    assert head.reads == ("m",)
    assert found["value"].tolist() == maps[:, 2:].tolist()
    assert found["sure"].tolist() == np.broadcast_to(maps[:, :2].max(axis=1, keepdims=True), (1, 4, 2, 2)).tolist()
    whole = Head("m", columns=Columns(1, 2, 6), sure=("m", Columns(1, 0, 2)), whole=True)
    assert np.array_equal(whole.view(maps[0]), found)
