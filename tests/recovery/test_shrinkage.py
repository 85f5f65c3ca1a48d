"""Few images, many inputs: what was not seen is not believed."""

import numpy as np
import pytest

from bocr_onnx.groups import build_index
from bocr_onnx.recovery import calibrate
from bocr_onnx.recovery.shrinkage import shrink, shrinkage
from tests.oracle import build


def test_a_covariance_of_few_rows_comes_nearer_to_the_truth():
    rng = np.random.default_rng(0)
    truth = np.diag(np.linspace(0.5, 2, 60))
    rows = rng.multivariate_normal(np.zeros(60), truth, size=30)
    seen = np.cov(rows, rowvar=False, bias=True)
    assert np.linalg.norm(shrink(seen, 30) - truth) < 0.5 * np.linalg.norm(seen - truth)
    assert np.trace(shrink(seen, 30)) == pytest.approx(np.trace(seen))


@pytest.mark.parametrize("covariance", [np.zeros((3, 3)), np.ones((1, 1)), np.eye(4)])
def test_degenerate_covariances_are_taken(covariance):
    assert 0 <= shrinkage(covariance, 10) <= 1
    assert np.isfinite(shrink(covariance, 10)).all()


def test_a_wide_classifier_is_not_free_to_cut_because_few_images_were_seen():
    graph = build(
        "m (float[N, 8] x) => (float[N, 40] y) { h = MatMul(x, a)  r = Relu(h)  y = MatMul(r, b) }",
        a=(8, 64),
        b=(64, 40),
    )
    images = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32)
    (curve,) = calibrate(build_index(graph), images).sensitivity.curves
    assert curve[32] > 0.02
