"""Static int8: what is quantized, what stays in floating point, and what comes first where the score is missed."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import numpy as np
import onnx
import pytest

from bocr_onnx.deploy import Int8, costly, float_kernels, prepared, quantize, tail_of, with_neighbours
from bocr_onnx.errors import ModelError
from bocr_onnx.graph import Array, from_proto
from bocr_onnx.runtime import run_once
from tests.oracle import build

DEMO = str(files("bocr_onnx.calibration") / "demo.onnx")
NET = """m (float[N, 3, 8, 8] x) => (float[N, 4] boxes, float[N, 6] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)  ar = Relu(a)
    b = Conv <pads = [1, 1, 1, 1]> (ar, w1, b1)  br = Relu(b)
    p = ReduceMean <axes = [2, 3], keepdims = 0> (br)
    q = Gemm <transB = 1> (p, w2, b2)  boxes = Sigmoid(q)
    r = Gemm <transB = 1> (p, w3, b3)  y = Mul(r, k)
}"""
SHAPES: dict[str, Any] = {"w0": (8, 3, 3, 3), "b0": (8,), "w1": (8, 8, 3, 3), "b1": (8,), "w2": (4, 8), "b2": (4,),
                          "w3": (6, 8), "b3": (6,), "k": (1,)}  # fmt: skip


def model(**changes: Array) -> onnx.ModelProto:
    return build(NET, **(SHAPES | changes)).proto


def feeds(n: int = 12, scale: float = 1.0) -> list[dict[str, Array]]:
    rng = np.random.default_rng(0)
    return [{"x": (scale * rng.standard_normal((1, 3, 8, 8))).astype(np.float32)} for _ in range(n)]


def relative_error(float_model: onnx.ModelProto, other: onnx.ModelProto) -> float:
    pairs = [(run_once(float_model, feed)[1], run_once(other, feed)[1]) for feed in feeds(6)]
    x, y = (np.concatenate(part) for part in zip(*pairs, strict=True))
    return float(np.linalg.norm(x - y) / np.linalg.norm(x))


@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_weights_are_int8_per_channel_and_outputs_stay_near(activations: Any) -> None:
    ready = prepared(model())
    made = quantize(ready, feeds(), Int8(activations))
    onnx.checker.check_model(made)
    tensors = {t.name: t for t in made.graph.initializer}
    reads = {name for node in made.graph.node if node.op_type == "Conv" for name in node.input[1:2]}
    for node in made.graph.node:
        if node.output[0] in reads:
            weight, scale, zero = (tensors[name] for name in node.input)
            assert weight.data_type == zero.data_type == onnx.TensorProto.INT8
            assert list(scale.dims) == [weight.dims[0]]
    zeros = {tensors[n.input[2]].data_type for n in made.graph.node if n.op_type == "QuantizeLinear"}
    expected = onnx.TensorProto.UINT8 if activations == "uint8" else onnx.TensorProto.INT8
    assert zeros == {expected}
    assert 0 < relative_error(ready, made) < 0.05
    assert [o.name for o in made.graph.output] == ["boxes", "y"]


def test_seven_bits_of_weight_where_kernels_would_saturate() -> None:
    ready = prepared(model())
    largest = []
    for narrow in (False, True):
        made = quantize(ready, feeds(), Int8("uint8", narrow))
        arrays = [
            onnx.numpy_helper.to_array(t) for t in made.graph.initializer if t.data_type == 3 and len(t.dims) == 4
        ]
        largest.append(max(int(np.abs(a.astype(int)).max()) for a in arrays))
    assert largest == [127, 64]


def test_what_nothing_with_weights_follows_is_the_tail() -> None:
    ready = prepared(model())
    graph = from_proto(ready)
    ops = {node.name: node.op for node in graph.nodes}
    assert sorted(ops[name] for name in tail_of(graph)) == ["Mul", "Sigmoid"]
    made = quantize(ready, feeds(), Int8("uint8", left=tail_of(graph)))
    whole = quantize(ready, feeds(), Int8("uint8"))
    makers = [{n: node.op_type for node in m.graph.node for n in node.output} for m in (made, whole)]
    assert [found["boxes"] for found in makers] == ["Sigmoid", "DequantizeLinear"]


def test_operators_that_stay_are_counted_in_the_graph_that_runs() -> None:
    ready = prepared(model())
    assert sum(float_kernels(ready).values()) == 4
    whole = quantize(ready, feeds(), Int8("uint8", left=tail_of(from_proto(ready))))
    left = float_kernels(whole)
    first = next(node.name for node in ready.graph.node if node.op_type == "Conv")
    more = float_kernels(quantize(ready, feeds(), Int8("uint8", left=frozenset({first}))))
    assert sum(more.values()) > sum(left.values())


def test_the_operator_whose_input_rounds_worst_comes_first() -> None:
    """One channel of the first map is a thousand times the others, which one scale for all leaves nothing of."""
    wide = np.ones((8, 1, 1, 1), np.float32)
    wide[0] = 1000
    w0 = np.random.default_rng(1).standard_normal((8, 3, 3, 3)).astype(np.float32) * wide
    w1 = np.random.default_rng(2).standard_normal((8, 8, 3, 3)).astype(np.float32)
    w1[:, 0] /= 1000
    ready = prepared(model(w0=w0, w1=w1))
    made = quantize(ready, feeds(), Int8("uint8"))
    ranked = costly(ready, made, feeds(4))
    assert len(ranked) == len(set(ranked)) == 4
    graph = from_proto(ready)
    ops = [node.name for node in graph.nodes if node.op in ("Conv", "Gemm")]
    relieved = quantize(ready, feeds(), Int8("uint8", left=with_neighbours(graph, ranked[:1])))
    worst = quantize(ready, feeds(), Int8("uint8", left=with_neighbours(graph, ranked[-1:])))
    assert set(ranked) == set(ops)
    assert relative_error(ready, relieved) <= relative_error(ready, worst)


def test_what_rounds_an_input_goes_back_with_the_operator() -> None:
    graph = from_proto(prepared(model()))
    first, relu, second, other = (graph.nodes[i].name for i in range(4))
    assert with_neighbours(graph, [first]) == {first, relu}
    assert with_neighbours(graph, [second]) == {first, relu, second, other}


def test_names_and_opset_are_made_what_int8_needs() -> None:
    old = onnx.parser.parse_model("""
        <ir_version: 6, opset_import: ["" : 11]>
        m (float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] y) { h = Conv (x, w) y = Relu(h) }""")
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    old.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    ready = prepared(old)
    assert [node.name for node in old.graph.node] == ["", ""], "the model itself is left alone"
    assert len({node.name for node in ready.graph.node} - {""}) == 2
    assert ready.opset_import[0].version == 13
    made = quantize(ready, feeds(), Int8("uint8"))
    (x,), (y,) = run_once(old, feeds(1)[0]), run_once(made, feeds(1)[0])
    assert np.linalg.norm(x - y) < 0.03 * np.linalg.norm(x)


def test_a_model_that_cannot_be_quantized_says_so() -> None:
    with pytest.raises(ModelError, match="ONNX Runtime can quantize"):
        quantize(prepared(model()), [{"wrong": np.zeros((1, 3, 8, 8), np.float32)}], Int8("uint8"))
