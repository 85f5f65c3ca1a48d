"""What every task promises; a further one is a row of `TASKS` and passes these too."""

from __future__ import annotations

import numpy as np
import pytest

from bocr_onnx.errors import DataError
from bocr_onnx.graph import Array, ModelGraph
from bocr_onnx.runtime import Head, Outputs, predict_heads
from bocr_onnx.tasks import TASKS, Task, fidelity, find_task
from tests.oracle import build

MAPS = "net (float[N, 2, 6, 6] x) => (float[N, 3, 6, 6] seg) { seg = Conv(x, k) }"
VECTORS = "net (float[N, 4] x) => (float[N, 3] y) { y = MatMul(x, w) }"


DETECTIONS = """net (float[N, 3, 32, 32] x) => (float[N, 6, 20] output0) {
    a = Conv <strides = [8, 8]> (x, k8)  b = Conv <strides = [16, 16]> (x, k16)
    a2 = Reshape(a, rows)  b2 = Reshape(b, rows)
    all = Concat <axis = 2> (a2, b2)  s = Sigmoid(all)  output0 = Mul(s, scale) }"""
SCALE = np.array([32, 32, 16, 16, 1, 1], np.float32)[:, None]


def model(name: str) -> tuple[ModelGraph, Array]:
    rng = np.random.default_rng(0)
    if name == "detection":
        graph = build(DETECTIONS, k8=(6, 3, 8, 8), k16=(6, 3, 16, 16), rows=[0, 6, -1], scale=SCALE)
        return graph, rng.standard_normal((40, 3, 32, 32)).astype(np.float32)
    if name == "segmentation":
        return build(MAPS, k=(3, 2, 1, 1)), rng.standard_normal((40, 2, 6, 6)).astype(np.float32)
    return build(VECTORS, w=(4, 3)), rng.standard_normal((40, 4)).astype(np.float32)


def tensors(graph: ModelGraph, images: Array) -> Array:
    """Returns the only output of the model, whole."""
    return predict_heads(graph, graph.proto, images, [Head(graph.outputs[0])])[0]


def viewed(task: Task, output: Array) -> Outputs:
    """Returns what a task keeps of the only output of a model."""
    return tuple(head.view(output) for head in task.heads)


@pytest.mark.parametrize("name", TASKS)
def test_the_original_agrees_with_itself_and_noise_does_worse_the_more_there_is(name: str) -> None:
    graph, images = model(name)
    task = find_task(graph, name)
    assert task.name == name
    reference = predict_heads(graph, graph.proto, images, task.heads)
    task.check(reference, None, "here")
    truth = task.truth(reference, None)
    assert task.score(reference, truth).value == pytest.approx(1.0)
    output = tensors(graph, images)
    spread = output.std(axis=(0, *range(2, output.ndim)), keepdims=True)
    noise = np.random.default_rng(1).standard_normal(output.shape).astype(np.float32) * spread
    values = [task.score(viewed(task, output + np.float32(a) * noise), truth).value for a in (0.1, 0.5, 3.0)]
    assert 1 > values[0] > values[1] > values[2] >= 0
    assert task.metric(labelled=False)
    score = task.score(reference, truth)
    assert score.n_samples == 40
    assert score.stderr >= 0


FIGURES = {
    "generic": {},
    "classification": {"agreement": 1.0},
    "segmentation": {"pixel agreement": 1.0},
    "regression": {"mean error": 0.0},
    "embedding": {"cosine": 1.0, "retrieval agreement": 1.0},
    "detection": {"mAP50": 1.0, "mAP50-95": 1.0, "found": 1.0},
}


@pytest.mark.parametrize("name", TASKS)
def test_figures_of_a_task_are_best_for_the_original_and_worse_for_noise(name: str) -> None:
    graph, images = model(name)
    task = find_task(graph, name)
    output = tensors(graph, images)
    reference = viewed(task, output)
    *_, same = task.figures(reference, reference)
    assert same == pytest.approx(FIGURES[name])
    noise = np.random.default_rng(1).standard_normal(output.shape).astype(np.float32)
    *_, other = task.figures(viewed(task, noise), reference)
    assert all(abs(other[key] - best) > 0.2 for key, best in FIGURES[name].items())


@pytest.mark.parametrize("name", TASKS)
def test_a_slice_is_scored_as_the_whole_is(name: str) -> None:
    graph, images = model(name)
    task = find_task(graph, name)
    reference = predict_heads(graph, graph.proto, images, task.heads)
    outputs = viewed(task, tensors(graph, images) + np.float32(0.3))
    truth = task.truth(reference, None)
    part = task.score(tuple(o[:10] for o in outputs), tuple(t[:10] for t in truth))
    alone = task.score(*(tuple(a[:10] for a in pair) for pair in (outputs, truth)))
    assert part == alone


LABELS = {
    "classification": np.arange(40) % 3,
    "regression": np.random.default_rng(3).standard_normal((40, 3)).astype(np.float32),
    "segmentation": np.random.default_rng(3).integers(0, 3, (40, 6, 6)),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_are_what_is_scored_against(name: str) -> None:
    graph, images = model(name)
    task, labels = find_task(graph, name), LABELS[name]
    reference = predict_heads(graph, graph.proto, images, task.heads)
    task.check(reference, labels, "here")
    truth = task.truth(reference, labels)
    assert task.metric(labelled=True) != task.metric(labelled=False)
    if name == "regression":
        assert task.score((labels,), truth).value == 1.0
    else:
        right = np.moveaxis(np.eye(3, dtype=np.float32)[labels], -1, 1)
        assert task.score((right,), truth).value == 1.0
    assert task.score(reference, truth).value < 0.7


@pytest.mark.parametrize("name", TASKS)
def test_finetuning_learns_from_labels_that_a_score_is_made_from(name: str) -> None:
    graph, _ = model(name)
    task, labels = find_task(graph, name), np.arange(40)
    assert task.learns(None) is None
    assert (task.learns(labels) is labels) == (name in LABELS)


@pytest.mark.parametrize(
    ("name", "labels", "words"),
    [
        ("classification", np.full(40, 3), "must be below the model's 3 classes, got 3"),
        ("classification", np.zeros(40, np.float32), "must be one class per image"),
        ("regression", np.zeros((40, 2), np.float32), "must be as many numbers per image as .* 'y' holds, got 2 for 3"),
        ("segmentation", np.zeros(40, np.int64), "must be masks of whole numbers"),
        ("segmentation", np.zeros((40, 5, 6), np.int64), "masks must be as large as output 'seg'"),
        ("segmentation", np.full((40, 6, 6), 3), "below the model's 3, or 255 for no class, got 3"),
    ],
)  # fmt: skip
def test_labels_of_another_kind_are_refused(name: str, labels: Array, words: str) -> None:
    graph, images = model(name)
    task = find_task(graph, name)
    with pytest.raises(DataError, match=words):
        task.check(predict_heads(graph, graph.proto, images, task.heads), labels, "here")


def test_positions_without_a_class_do_not_count() -> None:
    graph, images = model("segmentation")
    task, labels = find_task(graph, "segmentation"), LABELS["segmentation"].copy()
    right = np.moveaxis(np.eye(3, dtype=np.float32)[labels], -1, 1)
    right[:, :, 2] = -right[:, :, 2]
    reference = predict_heads(graph, graph.proto, images, task.heads)
    assert task.score((right,), task.truth(reference, labels)).value < 0.95
    labels[:, 2] = 255
    task.check(reference, labels, "here")
    assert task.score((right,), task.truth(reference, labels)).value == 1.0


def test_outputs_that_are_constant_on_the_images_are_refused() -> None:
    graph, images = model("generic")
    task = find_task(graph, "generic")
    with pytest.raises(DataError, match="must differ between images to be scored, got constant y"):
        task.check(predict_heads(graph, graph.proto, np.ones_like(images), task.heads), None, "here")


def test_fidelity_tells_each_output() -> None:
    graph, images = model("generic")
    task = find_task(graph, "generic")
    (reference,) = predict_heads(graph, graph.proto, images, task.heads)
    (same,) = fidelity(task.heads, (reference,), (reference,))
    assert same == {"name": "y", "distortion": 0.0, "correlation": pytest.approx(1.0), "largest_error": 0.0}
    (other,) = fidelity(task.heads, (-reference,), (reference,))
    assert other["correlation"] == pytest.approx(-1.0)
    assert other["largest_error"] == pytest.approx(2 * np.abs(reference).max(), rel=1e-5)
    (flat,) = fidelity(task.heads, (np.ones_like(reference),), (np.ones_like(reference),))
    assert flat["distortion"] is None
