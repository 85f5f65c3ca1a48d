from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bocr_onnx.cost import build_cost_model
from bocr_onnx.cost.full import full_macs
from bocr_onnx.groups import build_index
from tests.oracle import build

RECURRENT = "m (float[7, 2, 5] x) => (y) {{ y, h{c} = {op} <hidden_size = 6{more}> (x, W, R) }}"
SCALES = {
    "s": np.float32(0.1), "z": np.uint8(3), "ws": np.float32(0.1), "wz": np.int8(0), "os": np.float32(0.2),
    "oz": np.uint8(5),
}  # fmt: skip


def int8(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(-9, 9, shape).astype(np.int8)


BY_HAND: dict[str, tuple[str, dict[str, Any], int]] = {
    "lstm": (RECURRENT.format(op="LSTM", c=", c", more=""), {"W": (1, 24, 5), "R": (1, 24, 6)}, 7 * 2 * 24 * (5 + 6)),
    "gru": (RECURRENT.format(op="GRU", c="", more=""), {"W": (1, 18, 5), "R": (1, 18, 6)}, 7 * 2 * 18 * (5 + 6)),
    "rnn of both directions": (
        RECURRENT.format(op="RNN", c="", more=', direction = "bidirectional"'),
        {"W": (2, 6, 5), "R": (2, 6, 6)},
        7 * 2 * 2 * 6 * (5 + 6),
    ),
    "qlinearconv": (
        """m (float[1, 4, 8, 8] x) => (y) {
            q = QuantizeLinear(x, s, z)
            y = QLinearConv <pads = [1, 1, 1, 1]> (q, s, z, W, ws, wz, os, oz)
        }""",
        {"W": int8(6, 4, 3, 3), **SCALES},
        6 * 64 * 4 * 9,
    ),
    "convinteger": (
        """m (float[1, 4, 8, 8] x) => (y) { q = QuantizeLinear(x, s, z) y = ConvInteger <group = 2> (q, W, z) }""",
        {"W": int8(6, 2, 3, 3), **SCALES},
        6 * 36 * 2 * 9,
    ),
    "matmulinteger": (
        "m (float[1, 3, 4] x) => (y) { q = QuantizeLinear(x, s, z) y = MatMulInteger(q, W, z) }",
        {"W": int8(4, 6), **SCALES},
        3 * 4 * 6,
    ),
    "qlinearmatmul": (
        "m (float[1, 3, 4] x) => (y) { q = QuantizeLinear(x, s, z) y = QLinearMatMul(q, s, z, W, ws, wz, os, oz) }",
        {"W": int8(4, 6), **SCALES},
        3 * 4 * 6,
    ),
    "qgemm": (
        """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]> m (float[3, 4] x) => (y) {
            q = QuantizeLinear(x, s, z)
            y = com.microsoft.QGemm <transB = 1> (q, s, z, W, ws, wz)
        }""",
        {"W": int8(6, 4), **SCALES},
        3 * 4 * 6,
    ),
    "convtranspose": (
        "m (float[1, 4, 8, 8] x) => (y) { y = ConvTranspose <strides = [2, 2]> (x, W) }",
        {"W": (4, 6, 2, 2)},
        4 * 64 * 6 * 4,
    ),
    "gemm": ("m (float[1, 4] x) => (y) { y = Gemm <transB = 1> (x, W) }", {"W": (6, 4)}, 24),
    "einsum": ('m (float[1, 3, 4] x) => (y) { y = Einsum <equation = "btc,cd->btd"> (x, W) }', {"W": (4, 6)}, 72),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_macs_by_hand(name: str) -> None:
    text, constants, expected = BY_HAND[name]
    graph = build(text.replace("=> (y)", f"=> ({_kind(text)} y)"), **constants)
    node = max(graph.nodes, key=lambda n: full_macs(graph, n))
    assert full_macs(graph, node) == expected


def _kind(text: str) -> str:
    if "QLinear" in text:
        return "uint8[A, B, C, D]" if "Conv" in text else "uint8[A, B, C]"
    if "Integer" in text:
        return "int32[A, B, C, D]" if "Conv" in text else "int32[A, B, C]"
    return "float[A, B]" if "Gemm" in text else "float[A, B, C]" if "Einsum" in text else "float[A, B, C, D]"


@pytest.mark.parametrize("name", BY_HAND)
def test_whatever_follows_channels_counts_as_many(name: str) -> None:
    text, constants, expected = BY_HAND[name]
    graph = build(text.replace("=> (y)", f"=> ({_kind(text)} y)"), **constants)
    cost = build_cost_model(build_index(graph))
    assert cost.cost(cost.full).macs * graph.batch == expected


def test_a_tensor_may_be_both_factors_of_a_fused_product() -> None:
    graph = build(
        """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]> m (float[1, 3, 4] x) => (float[A, B, C] y) {
            r = Relu(x) y = com.microsoft.FusedMatMul <transB = 1> (r, r)
        }"""
    )
    assert graph.shapes["y"] == (1, 3, 3)
    assert full_macs(graph, graph.nodes[1]) == 3 * 3 * 4


def test_an_if_costs_what_its_more_expensive_branch_does() -> None:
    graph = build(
        """m (float[1, 3, 8, 8] x, bool b) => (float[A, B, C, D] y) {
            q = If (b) <
                then_branch = t () => (float[A, B, C, D] a) { c = Conv(x, w) r = Relu(c) a = Conv(r, v) },
                else_branch = e () => (float[A, B, C, D] z) { z = Conv(x, w) }
            >
            y = Relu(q)
        }""",
        w=(5, 3, 1, 1),
        v=(5, 5, 1, 1),
    )
    index = build_index(graph)
    cost = build_cost_model(index)
    assert cost.cost(cost.full).macs == 64 * 5 * 3 + 64 * 5 * 5
    assert [(r.op, r.nodes) for r in index.refusals] == [("If", (0,))]


def test_what_only_a_loop_reads_counts_as_parameters_and_its_refusal_says_what_does_not() -> None:
    graph = build(
        """m (float[1, 4] x, int64 n, bool go) => (float[1, 4] y) {
            h = MatMul(x, W) r = Relu(h) s = MatMul(r, V)
            y = Loop (n, go, s) <body = b (int64 i, bool c, float[1, 4] a) => (bool d, float[1, 4] e)
                <float[4] k = {1, 2, 3, 4}> { d = Identity(c) m = MatMul(a, C) e = Add(m, k) }>
        }""",
        W=(4, 6), V=(6, 4), C=(4, 4),
    )  # fmt: skip
    index = build_index(graph)
    cost = build_cost_model(index)
    assert cost.cost(cost.full).params == 24 + 24 + 16 + 4
    (said,) = (r.reason for r in index.refusals if r.op == "Loop")
    assert said.endswith("what its body costs is not counted")
