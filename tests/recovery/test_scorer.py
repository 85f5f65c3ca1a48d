"""A trial: scored on a first slice of images, and on the rest where that promises something."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bocr_onnx.graph import Array
from bocr_onnx.groups import build_index
from bocr_onnx.recovery import PolicyScorer, calibrate
from bocr_onnx.runtime import predict
from bocr_onnx.slimming import cut
from bocr_onnx.tasks import classes_of, distortion, find_task
from tests.oracle import build

WIDTHS = np.array([6])


@pytest.fixture(scope="module")
def scorer() -> PolicyScorer:
    graph = build("m (float[N, 8] x) => (float[N, 5] y) { h = MatMul(x, a) r = Relu(h) y = MatMul(r, b) }",
                  a=(8, 16), b=(16, 5))  # fmt: skip
    images = np.random.default_rng(0).standard_normal((250, 8)).astype(np.float32)
    images[150:] *= 3
    reference = predict(graph, graph.proto, images)
    task = find_task(graph)
    calibration = calibrate(build_index(graph), images)
    return PolicyScorer(calibration, images, task, (classes_of(reference),), (reference,))


def outputs(scorer: PolicyScorer) -> Array:
    found = scorer.calibration
    return predict(found.graph, cut(found.index, found.mask(WIDTHS)), scorer.images)


@pytest.mark.parametrize(("n_images", "n_first"), [(50, 50), (100, 100), (250, 100), (1000, 200)])
def test_the_first_slice_is_a_fifth_and_at_least_a_hundred(n_images: int, n_first: int, scorer: PolicyScorer) -> None:
    assert replace(scorer, images=np.zeros((n_images, 8), np.float32)).n_first == n_first


@pytest.mark.parametrize("share", [0.5, 0.999, 1.001, 2.0, None])
def test_scoring_stops_after_the_first_slice_where_that_is_too_far_off(
    share: float | None, scorer: PolicyScorer
) -> None:
    slim = outputs(scorer)
    first = distortion(slim[:100], scorer.reference[0][:100])
    found, _ = scorer.score(WIDTHS, "none", ceiling=None if share is None else share * first)
    stopped = share is not None and share < 1
    n = 100 if stopped else 250
    assert found.first == pytest.approx(first)
    assert found.distortion == (None if stopped else pytest.approx(distortion(slim, scorer.reference[0])))
    assert found.score.n_samples == n
    assert found.score.value == pytest.approx(np.mean(classes_of(slim[:n]) == scorer.truth[0][:n]))
    assert found.first != pytest.approx(distortion(slim, scorer.reference[0]), rel=1e-2)


def test_few_images_are_all_looked_at(scorer: PolicyScorer) -> None:
    few = replace(
        scorer, images=scorer.images[:60], truth=(scorer.truth[0][:60],), reference=(scorer.reference[0][:60],)
    )
    found, _ = few.score(WIDTHS, "none", ceiling=0.0)
    assert found.score.n_samples == 60
    assert found.distortion == found.first > 0
