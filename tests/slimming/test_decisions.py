from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from bocr_onnx.errors import ProofError
from bocr_onnx.graph import Array, ModelGraph, random_feeds
from bocr_onnx.groups import build_index
from bocr_onnx.slimming import cut, masked_original, prove_cut, prove_structure
from bocr_onnx.slimming.decisions import decisions, hand_over
from tests.oracle import build, run

STEM = """m (float[N, 3, 12, 12] x) => ({kind} y) {{
    a = Conv <pads = [1, 1, 1, 1]> (x, w, b)
    r = Relu(a)
    c = Conv(r, v)
    {tail}
}}"""
CONSTANTS: dict[str, Any] = {
    "w": (8, 3, 3, 3), "b": (8,), "v": (2, 8, 1, 1), "k": [20], "flat": [0, -1], "one": np.float32(1),
}  # fmt: skip
TAILS = {
    "peaks": (
        "p = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (c) "
        "e = Equal(p, c) f = Cast <to = 1> (e) y = Mul(c, f)",
        "float[N, 2, 12, 12]",
    ),
    "threshold": ("g = Greater(c, one) y = Cast <to = 1> (g)", "float[N, 2, 12, 12]"),
    "classes": ("y = ArgMax <axis = 1> (c)", "int64[N, 1, 12, 12]"),
    "top": ("f = Reshape(c, flat) s, i = TopK(f, k) h = Cast <to = 1> (i) y = Add(s, h)", "float[N, 20]"),
    "rounded": ("y = Round(c)", "float[N, 2, 12, 12]"),
    "floor": ("y = Floor(c)", "float[N, 2, 12, 12]"),
    "integers": ("i = Cast <to = 6> (c) y = Cast <to = 1> (i)", "float[N, 2, 12, 12]"),
    "unpooled": (
        "p, i = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c) "
        "j = Cast <to = 1> (i) y = Add(p, j)",
        "float[N, 2, 6, 6]",
    ),
}  # fmt: skip
JITTER = 1e-6


def model(name: str) -> ModelGraph:
    tail, kind = TAILS[name]
    return build(STEM.format(kind=kind, tail=tail), **CONSTANTS)


def near_ties(graph: ModelGraph) -> Any:
    """Returns a runtime in which every convolution with another number of inputs rounds in another way.

    The scores lie on a coarse grid of near ties, so that the last bit decides.
    """

    def jittered(proto: ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
        made = ModelProto()
        made.CopyFrom(proto)
        reader = next(n for n in made.graph.node if n.output[0] == "c")
        width = next(t.dims[1] for t in made.graph.initializer if t.name == reader.input[1])
        rng = np.random.default_rng(width)
        add = (JITTER * rng.standard_normal((1, 2, 12, 12))).astype(np.float32)
        made.graph.initializer.append(onnx.numpy_helper.from_array(add, "jitter"))
        made.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(4), "steps"))
        reader.output[0] = "c.raw"
        node = onnx.helper.make_node
        inserted = [
            node("Mul", ["c.raw", "steps"], ["c.fine"]), node("Round", ["c.fine"], ["c.grid"]),
            node("Div", ["c.grid", "steps"], ["c.coarse"]), node("Add", ["c.coarse", "jitter"], ["c"]),
        ]  # fmt: skip
        nodes = list(made.graph.node)
        at = nodes.index(reader) + 1
        copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in [*nodes[:at], *inserted, *nodes[at:]]]
        del made.graph.node[:]
        made.graph.node.extend(copies)
        return run(made, feeds)

    return jittered


MASK = np.arange(8) < 5


@pytest.mark.parametrize("name", TAILS)
def test_a_right_cut_is_proved_where_the_last_bit_decides(name: str) -> None:
    graph = model(name)
    index = build_index(graph)
    slim = cut(index, MASK)
    jittered = near_ties(graph)
    feeds = random_feeds(graph, batch=2)
    expected, got = (jittered(p, feeds)[0] for p in (masked_original(index, MASK, {}), slim))
    assert np.abs(expected.astype(float) - got.astype(float)).max() > 0.2, "no decision was flipped"
    assert prove_cut(index, MASK, slim, jittered).passed


@pytest.mark.parametrize("name", TAILS)
def test_a_wrong_cut_is_not_hidden_by_a_decision(name: str) -> None:
    graph = model(name)
    index = build_index(graph)
    slim = cut(index, MASK)
    slim.graph.node[1].op_type = "LeakyRelu"
    with pytest.raises(ProofError, match="must equal the masked original"):
        prove_structure(index, MASK, slim, run)


def test_what_follows_a_decision_is_compared_too() -> None:
    """The decision itself is right; a branch beside it, that meets it only afterwards, is not."""
    graph = build(
        """m (float[N, 3, 12, 12] x) => (float[N, 2, 12, 12] y) {
            d = Conv(x, u)
            g = Greater(d, zero)
            a = Conv <pads = [1, 1, 1, 1]> (x, w, b)
            r = Relu(a)
            c = Conv(r, v)
            y = Where(g, c, d)
        }""",
        u=(2, 3, 1, 1),
        zero=np.float32(0),
        **CONSTANTS,
    )
    index = build_index(graph)
    slim = cut(index, MASK)
    assert prove_cut(index, MASK, slim, run).passed
    next(n for n in slim.graph.node if n.op_type == "Relu").op_type = "LeakyRelu"
    with pytest.raises(ProofError, match="must equal the masked original"):
        prove_structure(index, MASK, slim, run)


def test_channels_of_a_decision_are_handed_over_without_the_removed_ones() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            a = Conv(x, w)  f = Floor(a)  y = Conv(f, v)
        }""",
        w=(8, 3, 1, 1),
        v=(2, 8, 1, 1),
    )
    index = build_index(graph)
    slim = cut(index, MASK)
    handed = hand_over(index, MASK, (masked_original(index, MASK, {}), slim), random_feeds(graph), run)
    assert handed is not None
    models, feeds = handed
    assert [f["f"].shape for f in feeds] == [(1, 8, 4, 4), (1, 5, 4, 4)]
    assert [o.name for m in models for o in m.graph.output] == ["y", "a", "y", "a"]
    assert np.array_equal(feeds[0]["f"][:, MASK], feeds[1]["f"])
    assert prove_cut(index, MASK, slim, run).passed


def test_shape_arithmetic_decides_nothing() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 48] y) {
            s = Shape(x) c = Cast <to = 1> (s) f = Floor(c) i = Cast <to = 7> (f) e = Equal(i, i)
            h = Identity(x) y = Flatten(h)
        }""",
    )
    assert decisions(graph) == {}


@pytest.mark.parametrize(
    ("name", "op", "instead"),
    [("threshold", "Greater", "Less"), ("classes", "ArgMax", "ArgMin"), ("rounded", "Round", "Floor")],
)
def test_a_decision_made_by_another_operator_is_not_handed_over(name: str, op: str, instead: str) -> None:
    graph = model(name)
    index = build_index(graph)
    slim = cut(index, MASK)
    assert prove_structure(index, MASK, slim, run).passed
    next(n for n in slim.graph.node if n.op_type == op).op_type = instead
    with pytest.raises(ProofError, match="must equal the masked original"):
        prove_structure(index, MASK, slim, run)
