"""Quantized constants that several operators read are cut for each of them on their own."""

from __future__ import annotations

import numpy as np
import onnx

from bocr_onnx.graph import from_proto, random_feeds
from bocr_onnx.groups import build_index
from bocr_onnx.slimming import cut, prove_cut
from tests.oracle import proto, random_mask, run, widths

SHARED = """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
    w = DequantizeLinear(qw, s) v = DequantizeLinear(qv, s) u = DequantizeLinear(qu, s)
    b = DequantizeLinear(qb, s) i = Identity(b) j = Identity(i)
    c = Conv(x, w, b) r = Relu(c) d = Conv(r, v, j) t = Relu(d) y = Conv(t, u)
}"""


def shared() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    integers = {
        name: rng.integers(-100, 100, shape, dtype=np.int8)
        for name, shape in {"qw": (6, 3, 1, 1), "qv": (6, 6, 1, 1), "qu": (2, 6, 1, 1)}.items()
    }
    return proto(SHARED, qb=np.arange(6, dtype=np.int32), s=np.array(0.02, np.float32), **integers)


def test_a_bias_that_two_convolutions_share_ties_nothing() -> None:
    made = shared()
    graph = from_proto(made)
    feeds = random_feeds(graph, batch=2)
    assert np.array_equal(run(made, feeds)[0], run(graph.proto, feeds)[0])
    assert not [n for n in graph.nodes if n.op == "Identity"]
    index = build_index(graph)
    assert sorted(widths(index).values()) == [6, 6]
    for seed in range(3):
        mask = random_mask(index, seed)
        assert prove_cut(index, mask, cut(index, mask), run).passed


def test_the_slim_model_stays_quantized() -> None:
    graph = from_proto(shared())
    index = build_index(graph)
    slim = cut(index, random_mask(index, 1))
    floating = [t for t in slim.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    assert all(not t.dims for t in floating)
    onnx.checker.check_model(slim, full_check=True)


def test_a_model_without_shared_constants_is_left_alone() -> None:
    made = proto(
        "m (float[N, 3] x) => (float[N, 2] y) { w = DequantizeLinear(q, s) y = MatMul(x, w) }",
        q=np.ones((3, 2), np.int8),
        s=np.array(0.5, np.float32),
    )
    assert from_proto(made).proto is made
