"""Which task a model has, and the tensors that it is measured at."""

from __future__ import annotations

import numpy as np
import pytest

from bocr_onnx.errors import DataError
from bocr_onnx.graph import Array
from bocr_onnx.runtime import predict_heads
from bocr_onnx.tasks import TASKS, find_task, measured
from tests.oracle import build

VECTOR = "net (float[N, 4] x) => (float[N, 3] {0}) {{ {0} = MatMul(x, w) }}"
MAP = "net (float[N, 2, 6, 6] x) => (float[N, 3, 6, 6] {0}) {{ {0} = Conv(x, k) }}"

CASES = {
    "a vector": (VECTOR.format("y"), {"w": (4, 3)}, "classification"),
    "a vector called an embedding": (VECTOR.format("embedding"), {"w": (4, 3)}, "embedding"),
    "a vector of landmarks": (VECTOR.format("landmarks"), {"w": (4, 3)}, "regression"),
    "a vector called by its operator": (VECTOR.format("Transpose_1"), {"w": (4, 3)}, "classification"),
    "a normalized vector": (
        "net (float[N, 4] x) => (float[N, 3] y) { a = MatMul(x, w) y = LpNormalization(a) }",
        {"w": (4, 3)},
        "embedding",
    ),
    "one number": ("net (float[N, 4] x) => (float[N, 1] y) { y = MatMul(x, w) }", {"w": (4, 1)}, "regression"),
    "one probability": (
        "net (float[N, 4] x) => (float[N, 1] y) { a = MatMul(x, w) y = Sigmoid(a) }",
        {"w": (4, 1)},
        "classification",
    ),
    "a vector of a pooled map": (
        "net (float[N, 2, 6, 6] x) => (float[N, 3, 1, 1] y) { a = Conv(x, k) y = GlobalAveragePool(a) }",
        {"k": (3, 2, 1, 1)},
        "classification",
    ),
    "one score per anchor": (
        "net (float[N, 2, 6] x) => (float[N, 6, 1] y) { t = Transpose <perm = [0, 2, 1]> (x) y = MatMul(t, w) }",
        {"w": (2, 1)},
        "generic",
    ),
    "a map": (MAP.format("y"), {"k": (3, 2, 1, 1)}, "generic"),
    "a map of logits": (MAP.format("seg_logits"), {"k": (3, 2, 1, 1)}, "segmentation"),
    "a map of probabilities": (
        "net (float[N, 2, 6, 6] x) => (float[N, 3, 6, 6] y) { a = Conv(x, k) y = Softmax <axis = 1> (a) }",
        {"k": (3, 2, 1, 1)},
        "segmentation",
    ),
    "boxes and scores": (
        "net (float[N, 4] x) => (float[N, 3] box, float[N, 3] score) { box = MatMul(x, w) score = Sigmoid(box) }",
        {"w": (4, 3)},
        "generic",
    ),
    "two heads of classes": (
        "net (float[N, 4] x) => (float[N, 3] age_logits, float[N, 2] sex_logits) "
        "{ age_logits = MatMul(x, w) sex_logits = MatMul(x, v) }",
        {"w": (4, 3), "v": (4, 2)},
        "classification",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_task_is_inferred_from_shapes_names_and_operators(case: str) -> None:
    text, constants, expected = CASES[case]
    graph = build(text, **constants)
    task = find_task(graph)
    assert task.name == expected
    assert {head.name for head in task.heads} == set(graph.outputs)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (np.zeros(5, np.int64), "classification"),
        (np.zeros(5, np.float32), "regression"),
        (np.zeros((5, 3), np.float32), "regression"),
        (np.zeros((5, 6, 6), np.int64), "segmentation"),
    ],
)
def test_labels_decide(labels: Array, expected: str) -> None:
    text = MAP.format("y") if expected == "segmentation" else VECTOR.format("y")
    graph = build(text, w=(4, 3)) if expected != "segmentation" else build(text, k=(3, 2, 1, 1))
    assert find_task(graph, labels=labels).name == expected


def test_a_task_is_named() -> None:
    graph = build(VECTOR.format("y"), w=(4, 3))
    for name in set(TASKS) - {"detection"}:
        assert find_task(graph, name).name == name
    with pytest.raises(DataError, match=r"must have a known layout to be read as detections, got y \(1, 3\)"):
        find_task(graph, "detection")


def test_what_a_decision_is_made_from_is_measured() -> None:
    graph = build(
        """net (float[1, 9, 4] x) => (int64[K, 3] chosen) {
            boxes = Relu(x)
            s = ReduceMean <axes = [2], keepdims = 0> (x)
            scores = Unsqueeze(s, one)
            chosen = NonMaxSuppression(boxes, scores, most, iou) }""",
        one=[1], most=[5], iou=np.array([0.5], np.float32),
    )  # fmt: skip
    assert measured(graph) == ("boxes", "scores")
    task = find_task(graph)
    assert task.name == "generic"
    x = np.random.default_rng(0).random((3, 9, 4)).astype(np.float32)
    boxes, scores = predict_heads(graph, graph.proto, x, task.heads)
    assert boxes.shape == (3, 9, 4)
    assert np.allclose(scores[:, 0], x.mean(axis=2))


def test_a_model_without_anything_to_measure_is_refused() -> None:
    graph = build("net (float[N, 4] x) => (int64[N] y) { y = ArgMax <axis = 1, keepdims = 0> (x) }")
    with pytest.raises(DataError, match="must have a floating output with a row per image"):
        find_task(graph)


def test_large_outputs_are_sampled_and_their_classes_kept() -> None:
    graph = build("net (float[N, 2, 64, 64] x) => (float[N, 3, 64, 64] logits) { logits = Conv(x, k) }", k=(3, 2, 1, 1))
    x = np.random.default_rng(0).standard_normal((2, 2, 64, 64)).astype(np.float32)
    whole = predict_heads(graph, graph.proto, x, [type(find_task(graph).heads[0])("logits")])[0]
    task = find_task(graph)
    (found,) = predict_heads(graph, graph.proto, x, task.heads)
    positions = task.heads[0].positions
    assert positions is not None
    assert found.shape == (2, 3, len(positions))
    assert np.array_equal(found, whole.reshape(2, 3, -1)[..., positions])
    masks = np.arange(2 * 64 * 64).reshape(2, 64, 64)
    assert np.array_equal(task.heads[0].sample(masks), masks.reshape(2, -1)[:, positions])


HEADS = "net (float[N, 4] x) => (float[N, 3] box, float[N, 2] score) { box = MatMul(x, w) score = MatMul(x, v) }"


def test_weights_say_how_much_each_output_counts() -> None:
    graph = build(HEADS, w=(4, 3), v=(4, 2))
    x = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)

    def score(weights: dict[str, float]) -> float:
        task = find_task(graph, "generic", weights=weights)
        box, scores = predict_heads(graph, graph.proto, x, task.heads)
        spoilt = (box + np.float32(0.5) * box.std(), scores + np.float32(0.1) * scores.std())
        return 1 - task.score(spoilt, (box, scores)).value

    alike, boxes, scores = score({}), score({"score": 0}), score({"box": 0})
    assert scores < alike < boxes
    assert alike == pytest.approx((boxes + scores) / 2, rel=1e-4)
    assert score({"box": 3}) == pytest.approx((3 * boxes + scores) / 4, rel=1e-4)


def test_weights_are_of_outputs_and_leave_one() -> None:
    graph = build(HEADS, w=(4, 3), v=(4, 2))
    with pytest.raises(DataError, match=r"must name outputs that .* is scored at, got 'boxs'\n.*Did you mean 'box'"):
        find_task(graph, weights={"boxs": 2.0})
    with pytest.raises(DataError, match=r"must leave an output of .* a weight above 0"):
        find_task(graph, weights={"box": 0.0, "score": 0.0})


def test_a_batch_of_one_may_have_lost_its_axis() -> None:
    graph = build(
        "net (float[1, 2, 6, 6] x) => (float[3, 6, 6] y) { a = Conv(x, k) y = Squeeze(a, zero) }",
        k=(3, 2, 1, 1), zero=np.array([0]),
    )  # fmt: skip
    assert measured(graph) == ("y",)
    task = find_task(graph)
    assert task.name == "generic"
    x = np.random.default_rng(0).standard_normal((5, 2, 6, 6)).astype(np.float32)
    (found,) = predict_heads(graph, graph.proto, x, task.heads)
    assert found.shape == (5, 3, 6, 6)
    with pytest.raises(DataError, match="must have outputs with an axis of images for `task=segmentation`"):
        find_task(graph, "segmentation")


def test_one_number_needs_no_axis_of_its_own() -> None:
    graph = build("net (float[N, 4] x) => (float[N] y) { a = MatMul(x, w) y = Squeeze(a, one) }", w=(4, 1), one=[1])
    task = find_task(graph)
    assert task.name == "regression"
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    (found,) = predict_heads(graph, graph.proto, x, task.heads)
    assert found.shape == (5, 1)
    assert task.truth((found,), np.arange(5, dtype=np.float32))[0].shape == (5, 1)


@pytest.mark.parametrize(("channels", "side", "found"), [(3, 20, True), (1, 8, True), (2, 20, False), (3, 7, False)])
def test_pictures_have_a_signal_to_noise_ratio(channels: int, side: int, found: bool) -> None:
    graph = build(
        f"net (float[N, 2, {side}, {side}] x) => (float[N, {channels}, {side}, {side}] y) {{ y = Conv(x, k) }}",
        k=(channels, 2, 1, 1),
    )
    task = find_task(graph, "generic")
    y = np.random.default_rng(0).uniform(0, 1, (4, channels, 50)).astype(np.float32)
    y[0, 0, :2] = 0, 1
    (figures,) = task.figures((y + np.float32(0.01),), (y,))
    assert figures == (pytest.approx({"PSNR": 40.0}, rel=1e-3) if found else {})
    assert not found or task.figures((y,), (y,)) == ({"PSNR": 100.0},)
