"""Statistics recovery: how far it goes, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from bocr_onnx.graph import Array, ModelGraph, from_proto, with_outputs
from bocr_onnx.groups import build_index
from bocr_onnx.recovery import calibrate
from bocr_onnx.recovery.patches import find_affines
from bocr_onnx.recovery.statistics import MAX_SCALE, Statistics, restore_statistics
from bocr_onnx.runtime import run_once
from tests.oracle import build

CHAIN = "m (float[N, 3, 6, 6] x) => (float[N, 2, 6, 6] y) { h = Conv(x, v, b) y = Conv(h, w, c) }"
FIRST, SECOND = (0, 1), (1, 1)


def chain(opset: int) -> ModelGraph:
    return build(CHAIN, opset=opset, v=(4, 3, 1, 1), b=(4,), w=(2, 4, 1, 1), c=(2,))


def images() -> Array:
    return np.random.default_rng(2).standard_normal((50, 3, 6, 6)).astype(np.float32)


def measured(graph: ModelGraph) -> dict[int, Statistics]:
    y, h = run_once(with_outputs(graph.proto, ["h"]), {"x": images()})
    return {i: Statistics(a.mean(axis=(0, 2, 3)), a.var(axis=(0, 2, 3))) for i, a in enumerate((h, y))}


@pytest.mark.parametrize("opset", [9, 17, 18])
@pytest.mark.parametrize(("wanted", "given"), [(2.0, 2.0), (100.0, MAX_SCALE), (0.01, 1 / MAX_SCALE)])
def test_no_output_is_stretched_or_shrunk_too_far(opset: int, wanted: float, given: float) -> None:
    """The second convolution wants the spread that it gets from a first one that is scaled as far as it may be."""
    graph = chain(opset)
    index = build_index(graph)
    now = measured(graph)
    goals = {
        0: Statistics(now[0].mean, now[0].variance * wanted**2),
        1: Statistics(now[1].mean, now[1].variance * given**2),
    }
    full = np.ones(index.n_channels, dtype=bool)
    weights = restore_statistics(index, find_affines(index), goals, full, {}, images())
    first, second = graph.operand(FIRST), graph.operand(SECOND)
    assert first is not None
    assert second is not None
    np.testing.assert_allclose(weights[FIRST], first * given, rtol=1e-3)
    np.testing.assert_allclose(weights[SECOND], second, rtol=1e-3)


def test_weights_may_be_held_by_constant_nodes() -> None:
    graph = chain(17)
    proto = onnx.ModelProto()
    proto.CopyFrom(graph.proto)
    held = [onnx.helper.make_node("Constant", [], [t.name], value=t) for t in proto.graph.initializer]
    del proto.graph.initializer[:]
    nodes = [*held, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    recovered = []
    for given in (graph, from_proto(proto)):
        found = calibrate(build_index(given), images())
        recovered.append(list(found.recover(found.mask(np.array([2])), "oneshot").values()))
    for one, other in zip(*recovered, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_a_map_of_one_position_is_left_alone() -> None:
    """After a global pooling the closed form has the last word; where there are maps, the statistics have."""
    graph = build(
        """m (float[N, 3, 6, 6] x) => (float[N, 5, 1, 1] y) {
            a = Conv(x, u) ar = Relu(a) b = Conv(ar, v) br = Relu(b)
            p = GlobalAveragePool(br) y = Conv(p, w, c)
        }""",
        u=(6, 3, 3, 3), v=(8, 6, 1, 1), w=(5, 8, 1, 1), c=(5,),
    )  # fmt: skip
    found = calibrate(build_index(graph), images())
    inner, last = (2, 1), (5, 1)
    mask = found.mask(np.array([3, 4]))
    fitted, restored = found.fit(mask), found.recover(mask, "oneshot")
    assert np.array_equal(restored[last], fitted[last])
    assert not np.allclose(restored[inner], fitted[inner], rtol=1e-3)


def test_statistics_of_a_depthwise_output_are_those_of_its_images() -> None:
    graph = build(
        """m (float[N, 3, 6, 6] x) => (float[N, 2, 3, 3] y) {
            a = Conv <pads = [1, 1, 1, 1]> (x, u, b) r = Relu(a)
            d = Conv <group = 4, strides = [2, 2], pads = [1, 1, 1, 1]> (r, v, c) y = Conv(d, w)
        }""",
        u=(4, 3, 3, 3), b=(4,), v=(4, 1, 3, 3), c=np.array([3, -2, 0.5, 8], np.float32), w=(2, 4, 1, 1),
    )  # fmt: skip
    found = calibrate(build_index(graph), images()).statistics
    y, d = run_once(with_outputs(graph.proto, ["d"]), {"x": images()})
    for node, outputs in ((2, d), (3, y)):
        np.testing.assert_allclose(found[node].mean, outputs.mean(axis=(0, 2, 3)), atol=1e-3)
        np.testing.assert_allclose(found[node].variance, outputs.var(axis=(0, 2, 3)), rtol=1e-2)
