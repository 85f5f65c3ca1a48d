from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from bocr_onnx.cost import build_cost_model
from bocr_onnx.graph import ModelGraph, from_proto, load, random_feeds
from bocr_onnx.groups import build_index
from bocr_onnx.slimming import cut
from tests.oracle import bn, build, n_elements, proto, random_mask, run


def counted_macs(model: ModelProto) -> int:
    """Counts multiply-accumulates on the model itself, with the shapes that a run at batch 1 shows."""
    weighted = [n for n in model.graph.node if n.op_type in ("Conv", "ConvTranspose", "MatMul", "Gemm")]
    names = sorted({name for n in weighted for name in (*n.input[:2], n.output[0])})
    looked = ModelProto()
    looked.CopyFrom(model)
    del looked.graph.output[:]
    looked.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    shapes = {name: a.shape for name, a in zip(names, run(looked, random_feeds(from_proto(model))), strict=True)}
    total = 0
    for node in weighted:
        x, w, out = (shapes[name] for name in (*node.input[:2], node.output[0]))
        if node.op_type == "Conv":
            total += math.prod(out) * math.prod(w[1:])
        elif node.op_type == "ConvTranspose":
            total += math.prod(x) * math.prod(w[1:])
        else:
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            total += math.prod(out) * x[0 if transposed else -1]
    return total


def stored_bytes(model: ModelProto) -> int:
    tensors = [*model.graph.initializer]
    tensors += [a.t for n in model.graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"]
    return sum(numpy_helper.to_array(t).nbytes for t in tensors)


CONV = "c = Conv <pads = [1, 1, 1, 1]> (x, W, b)"
HEAD = "g = GlobalAveragePool(e) f = Flatten(g) y = Gemm(f, G, gb)"
COMMON = {"W": (8, 3, 3, 3), "b": (8,), "gb": (5,)}
MODELS: dict[str, tuple[str, dict[str, object]]] = {
    "residual": (
        "r = Relu(c) d = Conv <pads = [1, 1, 1, 1]> (r, U)"
        " n = BatchNormalization(d, bn_s, bn_b, bn_m, bn_v) e = Add(n, r)",
        {"U": (8, 8, 3, 3), "G": (8, 5), **bn(8)},
    ),
    "depthwise": (
        "d = Conv <group = 8, strides = [2, 2]> (c, D) r = Relu(d) e = Conv(r, P)",
        {"D": (16, 1, 3, 3), "P": (12, 16, 1, 1), "G": (12, 5)},
    ),
    "grouped": (
        "d = Conv <group = 4> (c, D, db) r = Relu(d) e = Conv(r, P)",
        {"D": (12, 2, 3, 3), "db": (12,), "P": (10, 12, 1, 1), "G": (10, 5)},
    ),
    "dense": (
        "d = Conv(c, U) j = Concat <axis = 1> (c, d) q = Conv(j, Q) e = Concat <axis = 1> (j, q, x)",
        {"U": (6, 8, 1, 1), "Q": (4, 14, 1, 1), "G": (21, 5)},
    ),
    "transposed": (
        "d = ConvTranspose <strides = [2, 2], kernel_shape = [2, 2]> (c, T) e = Relu(d)",
        {"T": (8, 6, 2, 2), "G": (6, 5)},
    ),
    "squeeze and excitation": (
        "p = GlobalAveragePool(c) s = Conv(p, S) t = Relu(s) u = Conv(t, T) a = Sigmoid(u) e = Mul(c, a)",
        {"S": (4, 8, 1, 1), "T": (8, 4, 1, 1), "G": (8, 5)},
    ),
    "shortcut": (
        "d = Conv <pads = [1, 1, 1, 1]> (c, U) p = Pad(c, pads) e = Add(d, p)",
        {"U": (12, 8, 3, 3), "pads": [0, 2, 0, 0, 0, 2, 0, 0], "G": (12, 5)},
    ),
    "channel constants": ("m = Mul(c, k) e = PRelu(m, s)", {"k": (8, 6, 6), "s": (8, 1, 1), "G": (8, 5)}),
    "channels twice": ("e = Concat <axis = 1> (c, c)", {"G": (16, 5)}),
}


def model(name: str) -> ModelGraph:
    body, constants = MODELS[name]
    text = f"m (float[N, 3, 6, 6] x) => (float[N, 5] y) {{ {CONV} {body} {HEAD} }}"
    return build(text, **{**COMMON, **constants})


FLAT = """m (float[N, 3, 6, 6] x) => (float[N, 5] y) {
    c = Conv(x, W, b)
    f = Reshape(c, target)
    h = MatMul(f, M)
    a = Add(h, ab)
    r = Relu(a)
    y = Gemm <transB = 1> (r, G, gb)
}"""
FLAT_CONSTANTS = {"target": [0, 128], "M": (128, 7), "ab": (7,), "G": (5, 7)}


def assert_exact(graph: ModelGraph, seeds: range, *, folded_bytes: int = 0, folded_nodes: int = 0) -> None:
    """Asserts the prediction; shape arithmetic that the cut replaces by its result leaves the file unforeseen."""
    index = build_index(graph)
    cost = build_cost_model(index)
    assert cost.cost(cost.full).macs == counted_macs(graph.proto)
    assert cost.cost(cost.full).params == n_elements(graph.proto)
    assert cost.cost(cost.full).size_bytes == graph.proto.ByteSize()
    assert sum(cost.node_macs.values()) == counted_macs(graph.proto)
    for seed in seeds:
        mask = random_mask(index, seed)
        slim = cut(index, mask)
        predicted = cost.cost(np.array([mask[g.span].sum() for g in index.groups]))
        assert predicted.macs == counted_macs(slim)
        assert predicted.params == n_elements(slim)
        gone = stored_bytes(graph.proto) - stored_bytes(slim)
        assert gone > 0
        assert abs(cost.cost(cost.full).size_bytes - predicted.size_bytes - gone) <= folded_bytes
        slack = 8 * len(slim.graph.initializer) + 64 + 400 * folded_nodes
        assert predicted.size_bytes == pytest.approx(slim.ByteSize(), abs=slack)
        assert len(graph.proto.graph.node) - len(slim.graph.node) == folded_nodes


@pytest.mark.parametrize("name", MODELS)
def test_a_prediction_is_what_is_counted_on_the_cut_model(name: str) -> None:
    assert_exact(model(name), range(3))


def test_a_prediction_after_flattened_channels() -> None:
    assert_exact(build(FLAT, **{**COMMON, **FLAT_CONSTANTS}), range(3))


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "folded_nodes"),
    [("resnet20_folded", 30), ("resnet20_bn", 44), ("resnet20_dynamo", 0), ("mobilenet_v1_0.5_160", 0)],
)
def test_a_prediction_for_a_real_model(shared: Path, name: str, folded_nodes: int) -> None:
    graph = load(shared / "models" / f"{name}.onnx")
    assert_exact(graph, range(2), folded_bytes=256 if folded_nodes else 0, folded_nodes=folded_nodes)


def test_weights_in_constant_nodes_and_after_what_moves_them() -> None:
    made = proto(
        "m (float[N, 3] x) => (float[N, 2] y) { t = Transpose(A) a = MatMul(x, t) i = Identity(B) y = MatMul(a, i) }",
        A=(6, 3),
        B=(6, 2),
    )
    constant = onnx.helper.make_node("Constant", [], ["A"], value=made.graph.initializer[0])
    del made.graph.initializer[0]
    made.graph.node.insert(0, constant)
    graph = from_proto(made)
    index = build_index(graph)
    cost = build_cost_model(index)
    for width in (6, 4, 1):
        slim = cut(index, np.arange(6) < width)
        assert cost.cost(np.array([width])).params == n_elements(slim) == 5 * width


def test_half_precision_takes_two_bytes() -> None:
    half = np.ones((8, 3, 1, 1), np.float16), np.ones((2, 8, 1, 1), np.float16)
    graph = build(
        "m (float16[N, 3, 4, 4] x) => (float16[N, 2, 4, 4] y) { c = Conv(x, W) y = Conv(c, V) }", W=half[0], V=half[1]
    )
    cost = build_cost_model(build_index(graph))
    assert cost.size_bytes(np.array([[8], [7]])).tolist() == [graph.proto.ByteSize(), graph.proto.ByteSize() - 10]


def test_integers_are_no_parameters_but_bytes() -> None:
    graph = build(FLAT, **{**COMMON, **FLAT_CONSTANTS})
    cost = build_cost_model(build_index(graph))
    assert cost.cost(cost.full).params == 8 * 27 + 8 + 128 * 7 + 7 + 35 + 5
    assert cost.overhead_bytes == graph.proto.ByteSize() - stored_bytes(graph.proto)


def test_macs_are_those_of_batch_one() -> None:
    text = "m (float[{}, 3, 4, 4] x) => (float[{}, 2, 4, 4] y) {{ c = Conv(x, W) y = Conv(c, V) }}"
    for batch in ("N", "1", "8"):
        graph = build(text.format(batch, batch), W=(6, 3, 1, 1), V=(2, 6, 1, 1))
        cost = build_cost_model(build_index(graph))
        assert cost.cost(cost.full).macs == 16 * (18 + 12)


PRODUCTS: dict[str, tuple[str, dict[str, object]]] = {
    "both factors computed": (
        """m (float[N, 4, 5] x) => (float[N, 4, 4] y) {
            q = MatMul(x, Q) k = MatMul(x, K) t = Transpose <perm = [0, 2, 1]> (k) y = MatMul(q, t) }""",
        {"Q": (5, 6), "K": (5, 6)},
    ),
    "heads": (
        """m (float[N, 5, 6] x) => (float[N, 5, 6] y) {
            z = MatMul(x, A)
            s = Reshape(z, split)
            t = Transpose <perm = [2, 0, 3, 1, 4]> (s)
            q1, k1, v1 = Split(t)
            q = Squeeze(q1, front)
            k = Squeeze(k1, front)
            v = Squeeze(v1, front)
            kt = Transpose <perm = [0, 1, 3, 2]> (k)
            a = MatMul(q, kt)
            p = Softmax(a)
            o = MatMul(p, v)
            ot = Transpose <perm = [0, 2, 1, 3]> (o)
            m = Reshape(ot, merge)
            y = MatMul(m, O)
        }""",
        {"A": (6, 36), "O": (12, 6), "split": [0, 5, 3, 4, 3], "front": [0], "merge": [0, 5, 12]},
    ),
    "constants on the left": (
        "m (float[N, 5, 6] x) => (float[N, 5, 6] y) { h = MatMul(A, x) r = Relu(h) y = MatMul(B, r) }",
        {"A": (8, 5), "B": (5, 8)},
    ),
    "tokens and channels": (
        """m (float[N, 5, 6] x) => (float[N, 3, 2] y) {
            h = MatMul(A, x) r = Relu(h) g = MatMul(r, C) s = Relu(g) k = MatMul(B, s) y = MatMul(k, D) }""",
        {"A": (8, 5), "C": (6, 7), "B": (3, 8), "D": (7, 2)},
    ),
    "rows of Gemm": (
        """m (float[4, 5] x) => (float[6, 3] y) {
            g = Gemm(x, W) h = Gemm <transA = 1> (g, U) k = MatMul(h, V) y = Gemm <transA = 1> (k, T) }""",
        {"W": (5, 6), "U": (4, 8), "V": (8, 6), "T": (6, 3)},
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_prediction_for_products_of_other_axes_than_the_last(name: str) -> None:
    text, constants = PRODUCTS[name]
    graph = build(text, **constants)
    index = build_index(graph)
    cost = build_cost_model(index)
    batch = graph.batch
    assert cost.cost(cost.full).macs * batch == counted_macs(graph.proto)
    for seed in range(3):
        mask = random_mask(index, seed)
        predicted = cost.cost(np.array([mask[g.span].sum() for g in index.groups]))
        slim = cut(index, mask)
        assert predicted.macs == pytest.approx(counted_macs(slim) / batch, abs=0.5)
        assert predicted.params == n_elements(slim)


@pytest.mark.parametrize("name", MODELS)
def test_shares_are_what_would_be_gone(name: str) -> None:
    graph = model(name)
    cost = build_cost_model(build_index(graph))
    total = cost.macs(cost.full)[0]
    for i, share in enumerate(cost.shares()):
        without = cost.full.copy()
        without[i] = 0
        assert 0 < share <= 1
        assert share == pytest.approx(1 - cost.macs(without)[0] / total)
    assert max(cost.shares()) <= cost.prunable_share() <= 1


def test_costs_grow_with_every_width() -> None:
    cost = build_cost_model(build_index(model("dense")))
    rng = np.random.default_rng(0)
    smaller = rng.integers(1, cost.full, (50, len(cost.full)))
    larger = smaller + np.eye(len(cost.full), dtype=int)[rng.integers(0, len(cost.full), 50)]
    for count in (cost.macs, cost.params, cost.size_bytes):
        assert (count(larger) > count(smaller)).all()


def resnet_like(n_blocks: int = 9) -> ModelGraph:
    constants: dict[str, tuple[int, ...]] = {"W": (16, 3, 3, 3)}
    nodes = "h0 = Conv <pads = [1, 1, 1, 1]> (x, W)"
    for i in range(n_blocks):
        nodes += f" a{i} = Conv <pads = [1, 1, 1, 1]> (h{i}, A{i}) r{i} = Relu(a{i})"
        nodes += f" b{i} = Conv <pads = [1, 1, 1, 1]> (r{i}, B{i}) h{i + 1} = Add(b{i}, h{i})"
        constants |= {f"A{i}": (16, 16, 3, 3), f"B{i}": (16, 16, 3, 3)}
    nodes += f" g = GlobalAveragePool(h{n_blocks}) f = Flatten(g) y = MatMul(f, G)"
    return build(f"m (float[N, 3, 32, 32] x) => (float[N, 10] y) {{ {nodes} }}", **constants, G=(16, 10))


def test_thousands_of_policies_take_milliseconds() -> None:
    graph = resnet_like()
    cost = build_cost_model(build_index(graph))
    assert len(cost.full) == 10
    policies = np.random.default_rng(0).integers(1, 17, (2000, 10))
    started = time.perf_counter()
    macs, params, size = cost.macs(policies), cost.params(policies), cost.size_bytes(policies)
    assert time.perf_counter() - started < 0.5
    assert macs.shape == params.shape == size.shape == (2000,)
    assert macs[7] == cost.cost(policies[7]).macs


@pytest.mark.parametrize("kept", [4, 1])
def test_attention_as_one_operator_costs_scores_and_sums(kept: int) -> None:
    """Four heads of 8, 5 positions: 5 x 5 x 8 for the scores of a head, and as many for its sums over the values."""
    graph = build(
        """m (float[N, 5, 6] x) => (float[N, 5, 6] y) {
            q = MatMul(x, Q) k = MatMul(x, K) v = MatMul(x, V)
            a = Attention <q_num_heads = 4, kv_num_heads = 4> (q, k, v) y = MatMul(a, O)
        }""",
        opset=23,
        ir=10,
        Q=(6, 32),
        K=(6, 32),
        V=(6, 32),
        O=(32, 6),
    )
    cost = build_cost_model(build_index(graph))
    assert cost.macs(np.array([kept]))[0] == kept * (4 * 5 * 6 * 8 + 2 * 5 * 5 * 8)
