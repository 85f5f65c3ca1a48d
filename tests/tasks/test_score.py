"""What a score and a distortion count, and on how many images."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bocr_onnx.runtime import predict
from bocr_onnx.tasks import classes_of, distortion, score_outputs
from bocr_onnx.tasks.score import Score
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
