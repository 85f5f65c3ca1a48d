"""Moments: of whole runs of a batch that the model fixes, and never of a covariance that is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bocr_onnx.groups import build_index
from bocr_onnx.recovery import calibrate
from bocr_onnx.recovery.moments import centred, collect_moments
from bocr_onnx.recovery.oneshot import fit_targets
from bocr_onnx.recovery.patches import find_affines
from bocr_onnx.runtime import predict
from bocr_onnx.slimming import cut
from bocr_onnx.tasks import distortion
from tests.oracle import build


def test_a_covariance_below_what_rounding_resolves_is_still_positive() -> None:
    """The second moments of a constant, and those of one that rounding has made a little too small."""
    mean = np.full(6, 100.0)
    for lost in (0.0, 1e-8):
        second = np.outer(mean, mean) * (1 - lost)
        assert np.linalg.eigvalsh(centred(second, mean)).min() > -1e-9 * second[0, 0] * (1 if lost else 0)
    found = centred(np.stack([np.eye(3), 4 * np.eye(3)]), np.ones((2, 3)) * 0.5)
    assert np.allclose(found, [np.eye(3) - 0.25, 4 * np.eye(3) - 0.25], atol=1e-5)


@pytest.mark.parametrize("n_images", [3, 4, 10])
def test_of_a_fixed_batch_whole_runs_are_used(n_images: int) -> None:
    graph = build("m (float[4, 8] x) => (float[4, 5] y) { h = MatMul(x, a) r = Relu(h) y = MatMul(r, b) }",
                  a=(8, 16), b=(16, 5))  # fmt: skip
    images = np.random.default_rng(0).standard_normal((n_images, 8)).astype(np.float32)
    affines = find_affines(build_index(graph))
    whole = images[: n_images - n_images % 4]
    found = collect_moments(graph, affines, images)
    assert {number: known.n for number, known in found.items()} == dict.fromkeys(
        [0, 2] if len(whole) else [], len(whole)
    )
    if found:
        np.testing.assert_allclose(found[0].mean[0], whole.mean(axis=0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found[0].covariance[0], np.cov(whole.T, bias=True), atol=1e-4)


def test_a_fit_in_one_shot_does_not_believe_few_images() -> None:
    """As many inputs as can explain all that was seen are not enough on others: shrinkage keeps the fit sober."""
    graph = build(
        "m (float[N, 8] x) => (float[N, 40] y) { h = MatMul(x, a)  r = Relu(h)  y = Gemm(r, b) }",
        a=(8, 64),
        b=(64, 40),
    )
    rng = np.random.default_rng(0)
    seen, others = (rng.standard_normal((n, 8)).astype(np.float32) for n in (20, 400))
    found = calibrate(build_index(graph), seen)
    mask = found.mask(np.array([40]))
    reference = predict(graph, graph.proto, others)
    raw = collect_moments(graph, found.affines, seen)
    believing = replace(found, moments=raw, targets=fit_targets(graph, found.affines, raw))
    sober_error, believing_error = (
        distortion(predict(graph, cut(found.index, mask, which.fit(mask)), others), reference)
        for which in (found, believing)
    )
    assert sober_error < 0.9 * believing_error
