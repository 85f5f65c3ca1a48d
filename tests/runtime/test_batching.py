"""A batch that only looks open is closed, and images are then evaluated one by one."""

from __future__ import annotations

import numpy as np
import pytest

from bocr_onnx.graph import ModelGraph
from bocr_onnx.runtime import close_batch, predict
from tests.oracle import build

APART = """m (float[N, 3, 4, 4] x) => (float[N, 2] y) {
    c = Conv(x, W) r = Relu(c) p = GlobalAveragePool(r) f = Flatten(p) y = Gemm(f, V)
}"""
WEIGHTS = {"W": (6, 3, 1, 1), "V": (6, 2)}
BAKED = """m (float[N, 3, 4, 4] x) => (float[M, 2] y) {
    c = Conv(x, W) r = Relu(c) p = Reshape(r, t) q = ReduceMean <axes = [2], keepdims = 0> (p) y = Gemm(q, V)
}"""


def baked(first: int, last: int) -> ModelGraph:
    return build(BAKED, t=[first, 6, last], **WEIGHTS)


def test_an_open_batch_stays_open() -> None:
    graph = build(APART, **WEIGHTS)
    assert close_batch(graph) is graph


@pytest.mark.parametrize(("first", "last"), [(1, 16), (1, -1)])
def test_a_batch_baked_into_a_target_shape_is_closed(first: int, last: int) -> None:
    """The first fails on two images, the second averages them."""
    graph = baked(first, last)
    assert graph.batch_is_symbolic()
    assert not close_batch(graph).batch_is_symbolic()


def test_rows_that_are_mixed_are_noticed() -> None:
    graph = build(
        "m (float[N, 4] x) => (float[N, 3] y) { m = ReduceMean <axes = [0]> (x) c = Sub(x, m) y = MatMul(c, W) }",
        W=(4, 3),
    )
    assert not close_batch(graph).batch_is_symbolic()


def test_a_model_of_one_image_stays_as_it_is() -> None:
    graph = build(APART.replace("[N,", "[1,"), **WEIGHTS)
    assert close_batch(graph) is graph


def test_other_open_axes_stay_open() -> None:
    graph = build(
        """m (float[N, 3, H, 4] x) => (float[N, 2, H, 4] y) {
            m = ReduceMean <axes = [0]> (x) c = Sub(x, m) y = Conv(c, W)
        }""",
        W=(2, 3, 1, 1),
    )
    assert close_batch(graph).symbolic["x"] == (2,)


def test_images_go_through_a_baked_model_one_by_one() -> None:
    images = np.random.default_rng(0).normal(size=(5, 3, 4, 4)).astype(np.float32)
    graph = close_batch(baked(1, -1))
    apart = build(APART, **WEIGHTS)
    assert np.allclose(predict(graph, graph.proto, images), predict(apart, apart.proto, images), atol=1e-5)
