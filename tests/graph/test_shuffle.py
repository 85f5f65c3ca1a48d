"""Channel shuffles are read as one Gather that gives the same numbers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from bocr_onnx.graph import ModelGraph, from_proto, random_feeds
from tests.oracle import proto, run

TARGETS = {"a": [0, 2, 3, 4, 4], "b": [0, 6, 4, 4]}


def model(nodes: str, dims: str = "N, 6, 4, 4", out: str = "N, 6, 4, 4", opset: int = 17) -> onnx.ModelProto:
    text = f"m (float[{dims}] x) => (float[{out}] y) {{ c = Relu(x) {nodes} }}"
    return proto(text, opset=opset, **{name: value for name, value in TARGETS.items() if f"{name})" in nodes})


def ops(graph: ModelGraph) -> list[str]:
    return [node.op for node in graph.nodes]


def same(made: onnx.ModelProto, graph: ModelGraph) -> None:
    for batch in (1, 3):
        feeds = random_feeds(graph, batch=batch)
        for a, b in zip(run(made, feeds), run(graph.proto, feeds), strict=True):
            assert np.array_equal(a, b)


SHUFFLE = "r = Reshape(c, a) t = Transpose <perm = [0, 2, 1, 3, 4]> (r) s = Reshape(t, b) y = Neg(s)"


@pytest.mark.parametrize("dims", ["N, 6, 4, 4", "1, 6, 4, 4"])
@pytest.mark.parametrize("opset", [8, 13, 17])
def test_a_shuffle_becomes_one_gather(dims: str, opset: int) -> None:
    made = model(SHUFFLE, dims, dims, opset)
    graph = from_proto(made)
    assert ops(graph) == ["Relu", "Gather", "Neg"]
    onnx.checker.check_model(graph.proto, full_check=True)
    assert graph.constants["s.entries"].tolist() == [0, 3, 1, 4, 2, 5]
    if dims[0] == "N":
        same(made, graph)


def test_what_else_reads_the_chain_keeps_it() -> None:
    made = model(
        """r = Reshape(c, a) t = Transpose <perm = [0, 2, 1, 3, 4]> (r)
        s = Reshape(t, b) u = Reshape(t, b) y = Add(s, u)"""
    )
    graph = from_proto(made)
    assert sorted(ops(graph)) == ["Add", "Gather", "Gather", "Relu"]
    same(made, graph)
    kept = model(
        """r = Reshape(c, a) t = Transpose <perm = [0, 2, 1, 3, 4]> (r) s = Reshape(t, b)
        n = Neg(t) v = Reshape(n, b) y = Add(s, v)"""
    )
    graph = from_proto(kept)
    assert {"Gather", "Transpose"} <= set(ops(graph))
    same(kept, graph)


@pytest.mark.parametrize(
    "nodes",
    [
        "r = Reshape(c, a) t = Transpose <perm = [0, 1, 2, 4, 3]> (r) s = Reshape(t, b) y = Neg(s)",
        "r = Reshape(c, a) t = Transpose <perm = [0, 1, 2, 3, 4]> (r) s = Reshape(t, b) y = Neg(s)",
        "r = Reshape(c, a) t = Transpose <perm = [0, 2, 1, 3, 4]> (r) n = Neg(t) y = Reshape(n, b)",
    ],
)
def test_other_chains_stay(nodes: str) -> None:
    made = model(nodes)
    graph = from_proto(made)
    assert "Gather" not in ops(graph)
    same(made, graph)


def test_a_shuffle_that_picks_half_the_channels() -> None:
    """As exporters write a shuffle and a split: the first axis tells even channels from odd ones."""
    made = proto(
        """m (float[1, 6, 4, 4] x) => (float[1, 3, 4, 4] y) {
            c = Relu(x) r = Reshape(c, a) t = Transpose <perm = [1, 0, 2]> (r) s = Reshape(t, b)
            e = Gather <axis = 0> (s, zero) o = Gather <axis = 0> (s, one) y = Add(e, o)
        }""",
        a=[3, 2, 16],
        b=[2, 1, 3, 4, 4],
        zero=np.array(0, np.int64),
        one=np.array(1, np.int64),
    )
    graph = from_proto(made)
    assert ops(graph) == ["Relu", "Gather", "Gather", "Add"]
    assert [graph.constants[f"{n}.entries"].tolist() for n in "eo"] == [[0, 2, 4], [1, 3, 5]]
    feeds = random_feeds(graph)
    assert np.array_equal(run(made, feeds)[0], run(graph.proto, feeds)[0])


def test_a_shuffle_that_is_one_at_batch_1_only_stays() -> None:
    """The target folds the batch into the channels: with two images their channels would be dealt to each other."""
    made = proto(
        """m (float[N, 6] x) => (float[M, 6] y) {
            c = Relu(x) r = Reshape(c, a) t = Transpose <perm = [1, 0]> (r) s = Reshape(t, b) y = Neg(s)
        }""",
        a=[2, -1],
        b=[-1, 6],
    )
    assert "Gather" not in ops(from_proto(made))
