"""Which axis is the batch, and what is counted per sample."""

from __future__ import annotations

import pytest

from bocr_onnx.cost import build_cost_model
from bocr_onnx.graph import ModelGraph, from_proto
from bocr_onnx.groups import build_index
from bocr_onnx.recovery.sequential import peak_bytes
from bocr_onnx.runtime import batch_size
from tests.oracle import build, proto

CONV = "{ c = Conv(x, W) p = GlobalAveragePool(c) y = Flatten(p) }"
WEIGHTS = {"W": (8, 3, 3, 3)}


def macs(graph: ModelGraph) -> int:
    cost = build_cost_model(build_index(graph))
    return cost.cost(cost.full).macs


def images(n: str) -> ModelGraph:
    return build(f"m (float[{n}, 3, 10, 10] x) => (float[{n}, 8] y) {CONV}", **WEIGHTS)


def test_a_batch_that_inputs_and_outputs_share_is_divided_by() -> None:
    fixed, single = images("2"), images("N")
    assert (fixed.batch, single.batch) == (2, 1)
    assert macs(fixed) == macs(single) == 8 * 8 * 8 * 27
    assert batch_size(fixed) == 2
    assert peak_bytes(fixed) == peak_bytes(single) == 4 * (3 * 100 + 8 * 64)


def test_a_sequence_is_one_sample() -> None:
    text = "m (float[100, 1, 16] x) => (float[100, 1, 5] y) { h = MatMul(x, W) y = MatMul(h, V) }"
    graph = build(text, W=(16, 32), V=(32, 5))
    assert graph.batch == 1
    assert macs(graph) == 100 * (16 * 32 + 32 * 5)


def test_time_of_a_recurrent_operator_is_no_batch() -> None:
    graph = build(
        """m (float[20, 1, 16] x) => (float[20, 1, 5] y) {
            h, s, c = LSTM <hidden_size = 4> (x, W, R) q = Squeeze(h, one) y = MatMul(q, V) }""",
        W=(1, 16, 16),
        R=(1, 16, 4),
        V=(4, 5),
        one=[1],
    )
    assert graph.batch == 1
    conv = build(
        """m (float[20, 4, 16] x) => (float[20, 4, 4] y) {
            k = Conv(x, F) h, s, c = LSTM <hidden_size = 4> (k, W, R) y = Squeeze(h, one) }""",
        F=(4, 4, 1),
        W=(1, 16, 16),
        R=(1, 16, 4),
        one=[1],
    )
    assert conv.batch == 1


def test_an_image_without_a_batch_is_one_sample() -> None:
    text = "m (float[3, 10, 10] x) => (float[3, 8, 8] y) { u = Unsqueeze(x, zero) c = Conv(u, W) y = Squeeze(c, zero) }"
    graph = build(text, W=(3, 3, 3, 3), zero=[0])
    assert graph.batch == 1
    assert macs(graph) == 64 * 81


def test_rows_that_attend_to_each_other_are_one_sample() -> None:
    rows = "m (float[6, 4] x) => (float[6, 4] y) "
    apart = build(rows + "{ h = MatMul(x, W) y = Relu(h) }", W=(4, 4))
    mixed = build(rows + "{ h = MatMul(x, W) t = Transpose(h) s = MatMul(h, t) y = MatMul(s, h) }", W=(4, 4))
    assert (apart.batch, mixed.batch) == (6, 1)


ROWS = "m (float[4, 6] x) => (float[4, 5] y) {{ {body} y = MatMul(t, V) }}"


@pytest.mark.parametrize(
    "body",
    [
        "r = Relu(x) t = MatMul(A, r)",
        "t = Gemm(A, x)",
        "s = Gemm <transA = 1> (x, A) t = Transpose(s)",
        'r = Relu(x) t = Einsum <equation = "pq,qc->pc"> (A, r)',
        "u = Unsqueeze(x, zero) v = MatMul(A, u) t = Squeeze(v, zero)",
        "t = Softmax <axis = 0> (x)",
        "p = ReduceMean <axes = [0]> (x) t = Sub(x, p)",
    ],
)
def test_rows_that_an_operator_mixes_are_one_sample(body: str) -> None:
    graph = build(ROWS.format(body=body), A=(4, 4), V=(6, 5), **({"zero": [0]} if "zero" in body else {}))
    assert graph.batch == 1


def test_samples_that_a_constant_mixes_after_convolutions_are_one() -> None:
    graph = build(
        """m (float[4, 3, 10, 10] x) => (float[4, 8] y) {
            c = Conv(x, W) p = GlobalAveragePool(c) f = Flatten(p) y = MatMul(A, f)
        }""",
        A=(4, 4), **WEIGHTS,
    )  # fmt: skip
    assert graph.batch == 1


def test_axes_of_two_names_are_no_batch() -> None:
    text = """m (float[{n}, 3, 10, 10] x, float[{m}, 8] z) => (float[{n}, 8] y) {{
        c = Conv(x, W) p = GlobalAveragePool(c) f = Flatten(p) y = Add(f, z)
    }}"""
    shapes = {"x": (4, 3, 10, 10), "z": (4, 8)}
    for n, m, batch in (("N", "N", 4), ("N", "M", 1)):
        assert from_proto(proto(text.format(n=n, m=m), **WEIGHTS), input_shapes=shapes).batch == batch


@pytest.mark.parametrize("inputs", ["float s, float[4, 6] x", "float[4, 6] x, float s", "float[4] s, float[4, 6] x"])
def test_the_first_input_of_two_axes_has_the_batch(inputs: str) -> None:
    assert build(f"m ({inputs}) => (float[4, 5] y) {{ y = MatMul(x, V) }}", V=(6, 5)).batch == 4


def test_an_axis_that_an_output_lacks_is_no_batch() -> None:
    graph = build(
        "m (float[2, 3, 10, 10] x) => (float[16] y) { c = Conv(x, W) p = GlobalAveragePool(c) y = Reshape(p, all) }",
        **WEIGHTS,
        all=[-1],
    )
    assert graph.batch == 1
    assert macs(graph) == 2 * 64 * 8 * 27


def test_an_axis_that_another_input_lacks_is_no_batch() -> None:
    text = "{ c = Conv(x, W) p = GlobalAveragePool(c) f = Flatten(p) y = Add(f, s) }"
    with_state = "m (float[2, 3, 10, 10] x, float[%d, 8] s) => (float[2, 8] y) " + text
    assert build(with_state % 1, **WEIGHTS).batch == 1
    assert build(with_state % 2, **WEIGHTS).batch == 2
