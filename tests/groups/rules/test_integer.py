from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from bocr_onnx.cost import build_cost_model
from bocr_onnx.graph import Array, ModelGraph, from_proto, load, random_feeds
from bocr_onnx.groups import GroupIndex, Member, build_index
from bocr_onnx.slimming import Plan, cut, masked_original
from tests.oracle import build, check, foreseen, proto, random_mask, reasons, run, widths

MICROSOFT = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>'
SCALES: dict[str, Array] = {
    "s": np.array(0.03, np.float32), "z": np.array(97, np.uint8), "t": np.array(0.05, np.float32),
    "u": np.array(131, np.uint8), "ws": np.array(0.01, np.float32), "wz": np.array(3, np.int8),
}  # fmt: skip
"""Scale and zero point of one tensor, of another, and of weights; no zero point is zero."""


def whole(*shape: int, kind: Any = np.int8, seed: int = 0) -> Array:
    """Returns seeded integers, between -40 and 40 or around 128."""
    drawn = np.random.default_rng([seed, *shape]).integers(-40, 40, shape)
    return np.asarray(drawn + (128 if kind is np.uint8 else 0)).astype(kind)


def scales(n: int) -> Array:
    return np.random.default_rng(n).uniform(0.005, 0.02, n).astype(np.float32)


def zeros(n: int) -> Array:
    return np.full(n, 3, np.int8)


def keep(index: GroupIndex, **n_kept: int) -> Array:
    """Returns the mask that keeps the first channels of every group, so many of those that are named."""
    return Plan(tuple(tuple(range(n_kept.get(g.name, g.n_channels))) for g in index.groups)).mask(index)


def macs_of_cut(graph: ModelGraph, index: GroupIndex, **n_kept: int) -> int:
    """Returns the MACs of a slim model, read anew."""
    slim = from_proto(cut(index, keep(index, **n_kept)))
    return foreseen(slim, build_index(slim))


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
@pytest.mark.parametrize("per_channel", [False, True])
def test_qlinearconv_cuts_its_outputs_with_the_inputs_of_the_next(per_channel: bool, kind: Any) -> None:
    graph = build(
        """m (float[N, 3, 5, 5] x) => (float[N, 4, 5, 5] y) {
            q = QuantizeLinear(x, s, z)
            c = QLinearConv <pads = [1, 1, 1, 1]> (q, s, z, W, Ws, Wz, t, u, b)
            y8 = QLinearConv <pads = [1, 1, 1, 1]> (c, t, u, V, ws, wz, s, z)
            y = DequantizeLinear(y8, s, z)
        }""",
        W=whole(8, 3, 3, 3),
        V=whole(4, 8, 3, 3),
        b=whole(8, kind=np.int32) * 20,
        Ws=scales(8) if per_channel else SCALES["ws"],
        Wz=zeros(8) if per_channel else SCALES["wz"],
        **SCALES | {"z": np.array(7, kind), "u": np.array(13, kind)},
    )
    index = check(graph, tolerance=0)
    assert widths(index) == {"QLinearConv_1": 8}
    assert (index.sources, index.sinks) == ({(1, 3): 0, (2, 3): 0}, {(2, 3): (1,)})
    assert foreseen(graph, index) == 25 * 9 * (3 * 8 + 8 * 4)
    assert macs_of_cut(graph, index, QLinearConv_1=5) == 25 * 9 * (3 * 5 + 5 * 4)
    expected = [Member("QLinearConv_1", "QLinearConv", name, 0, 8) for name in ("W", "Ws", "Wz", "b")]
    expected = expected if per_channel else [expected[0], expected[3]]
    assert index.groups[0].members == (*expected, Member("QLinearConv_2", "QLinearConv", "V", 1, 8))
    assert reasons(index) == {"DequantizeLinear_3": "they are the model's output 'y'"}


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_qlinearconv_passes_the_channels_and_counts_its_groups(multiplier: int) -> None:
    wide = 6 * multiplier
    graph = build(
        """m (float[N, 3, 5, 5] x) => (float[N, 4, 5, 5] y) {
            q = QuantizeLinear(x, s, z)
            c = QLinearConv(q, s, z, W, ws, wz, t, u)
            d = QLinearConv <group = 6, pads = [1, 1, 1, 1]> (c, t, u, D, Ds, Dz, s, z, b)
            y8 = QLinearConv(d, s, z, V, ws, wz, t, u)
            y = DequantizeLinear(y8, t, u)
        }""",
        W=whole(6, 3, 1, 1),
        D=whole(wide, 1, 3, 3),
        Ds=scales(wide),
        Dz=zeros(wide),
        b=whole(wide, kind=np.int32),
        V=whole(4, wide, 1, 1),
        **SCALES,
    )
    index = check(graph, tolerance=0)
    assert widths(index) == {"QLinearConv_1": 6}
    assert macs_of_cut(graph, index, QLinearConv_1=4) == 25 * (3 * 4 + 4 * multiplier * (9 + 4))
    depthwise = cut(index, keep(index, QLinearConv_1=4)).graph.node[2]
    assert [a.i for a in depthwise.attribute if a.name == "group"] == [4]


def test_grouped_qlinearconv_keeps_its_blocks_equal() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            q = QuantizeLinear(x, s, z)
            c = QLinearConv(q, s, z, W, ws, wz, t, u)
            g = QLinearConv <group = 2> (c, t, u, G, Gs, Gz, s, z)
            y8 = QLinearConv(g, s, z, V, ws, wz, t, u)
            y = DequantizeLinear(y8, t, u)
        }""",
        W=whole(6, 3, 1, 1),
        G=whole(8, 3, 1, 1),
        Gs=scales(8),
        Gz=zeros(8),
        V=whole(2, 8, 1, 1),
        **SCALES,
    )
    assert widths(check(graph, tolerance=0)) == {"QLinearConv_1": 3, "QLinearConv_2": 4}


@pytest.mark.parametrize("zeros_of_weight", ["", ", wz"])
def test_convinteger_is_cut_before_scales_that_are_computed(zeros_of_weight: str) -> None:
    """As dynamic quantization writes it; what is quantized by its own range keeps its channels."""
    graph = build(
        f"""m (float[N, 3, 5, 5] x) => (float[N, 4, 5, 5] y) {{
            q, p, o = DynamicQuantizeLinear(x)
            i = ConvInteger <pads = [1, 1, 1, 1]> (q, W, o{zeros_of_weight})
            f = Cast <to = 1> (i)
            k = Mul(p, ws)
            g = Mul(f, k)
            a = Add(g, b)
            r = Relu(a)
            q8 = QuantizeLinear(r, s, z)
            j = ConvInteger(q8, V, z{zeros_of_weight})
            h = Cast <to = 1> (j)
            e = Mul(h, ws)
            v, w, n = DynamicQuantizeLinear(e)
            l = ConvInteger(v, U, n)
            y = Cast <to = 1> (l)
        }}""",
        W=whole(8, 3, 3, 3),
        V=whole(5, 8, 1, 1),
        U=whole(4, 5, 1, 1),
        b=(8, 1, 1),
        **SCALES,
    )
    index = check(graph, tolerance=0)
    assert widths(index) == {"ConvInteger_1": 8}
    assert macs_of_cut(graph, index, ConvInteger_1=3) == 25 * (3 * 9 * 3 + 3 * 5 + 5 * 4)
    assert reasons(index)["DynamicQuantizeLinear_11"] == "its scale is taken over all channels"


def test_convinteger_without_zero_points_reads_zero() -> None:
    graph = build(
        """m (float[N, 3, 5, 5] x) => (float[N, 4, 5, 5] y) {
            q = QuantizeLinear(x, s, z)
            i = ConvInteger(q, W, z)
            f = Cast <to = 1> (i)
            m = QuantizeLinear(f, t, none)
            j = ConvInteger(m, V)
            y = Cast <to = 1> (j)
        }""",
        W=whole(8, 3, 1, 1),
        V=whole(4, 8, 1, 1),
        none=np.array(0, np.uint8),
        **SCALES,
    )
    assert widths(check(graph, tolerance=0)) == {"ConvInteger_1": 8}


@pytest.mark.parametrize("per_column", [False, True])
def test_qlinearmatmul_cuts_its_columns_and_their_scales(per_column: bool) -> None:
    graph = build(
        """m (float[N, 3, 4] x) => (float[N, 3, 2] y) {
            q = QuantizeLinear(x, s, z)
            h = QLinearMatMul(q, s, z, A, As, Az, t, u)
            y8 = QLinearMatMul(h, t, u, B, ws, wz, s, z)
            y = DequantizeLinear(y8, s, z)
        }""",
        A=whole(4, 8),
        B=whole(8, 2),
        As=scales(8) if per_column else SCALES["ws"],
        Az=zeros(8) if per_column else SCALES["wz"],
        **SCALES,
    )
    index = check(graph, tolerance=0)
    assert widths(index) == {"QLinearMatMul_1": 8}
    assert macs_of_cut(graph, index, QLinearMatMul_1=3) == 3 * (4 * 3 + 3 * 2)
    cut_with = {(m.tensor, m.axis) for m in index.groups[0].members}
    assert cut_with == {("A", 1), ("B", 0), *([("As", 0), ("Az", 0)] if per_column else [])}


def test_scales_of_a_batch_of_matrices_lie_on_the_axes_of_these() -> None:
    graph = build(
        """m (float[2, 3, 4] x) => (float[2, 3, 2] y) {
            q = QuantizeLinear(x, s, z)
            h = QLinearMatMul(q, s, z, A, As, Az, t, u)
            y8 = QLinearMatMul(h, t, u, B, ws, wz, s, z)
            y = DequantizeLinear(y8, s, z)
        }""",
        A=whole(2, 4, 8),
        B=whole(8, 2),
        As=scales(16).reshape(2, 1, 8),
        Az=np.full((2, 1, 8), 3, np.int8),
        **SCALES,
    )
    index = check(graph, tolerance=0)
    assert widths(index) == {"QLinearMatMul_1": 8}
    assert {(m.tensor, m.axis) for m in index.groups[0].members} == {("A", 2), ("As", 2), ("Az", 2), ("B", 0)}


def test_qlinearmatmul_with_its_weight_on_the_left() -> None:
    graph = build(
        """m (float[N, 4, 3] x) => (float[N, 2, 3] y) {
            q = QuantizeLinear(x, s, z)
            h = QLinearMatMul(A, ws, az, q, s, z, t, u)
            y8 = QLinearMatMul(B, ws, az, h, t, u, s, z)
            y = DequantizeLinear(y8, s, z)
        }""",
        A=whole(8, 4, kind=np.uint8),
        B=whole(2, 8, kind=np.uint8),
        az=np.array(125, np.uint8),
        **SCALES,
    )
    assert widths(check(graph, tolerance=0)) == {"QLinearMatMul_1": 8}


@pytest.mark.parametrize("per_column", [False, True])
def test_matmulinteger_cuts_its_columns_and_their_zero_points(per_column: bool) -> None:
    graph = build(
        """m (float[N, 3, 4] x) => (float[N, 3, 2] y) {
            q, p, o = DynamicQuantizeLinear(x)
            i = MatMulInteger(q, A, o, Az)
            f = Cast <to = 1> (i)
            g = Mul(f, ws)
            m = QuantizeLinear(g, s, z)
            j = MatMulInteger(m, B, z, wz)
            y = Cast <to = 1> (j)
        }""",
        A=whole(4, 8),
        B=whole(8, 2),
        Az=np.arange(-4, 4).astype(np.int8) if per_column else SCALES["wz"],
        **SCALES,
    )
    index = check(graph, tolerance=0)
    assert widths(index) == {"MatMulInteger_1": 8}
    assert macs_of_cut(graph, index, MatMulInteger_1=3) == 3 * (4 * 3 + 3 * 2)
    assert {m.tensor for m in index.groups[0].members} == {"A", "B", *(["Az"] if per_column else [])}


def test_matmulinteger_of_two_computed_factors_joins_what_it_sums_over() -> None:
    graph = build(
        """m (float[N, 5, 4] x) => (float[N, 5, 5] y) {
            q = QuantizeLinear(x, s, z)
            a = QLinearMatMul(q, s, z, A, ws, wz, t, u)
            b = QLinearMatMul(q, s, z, B, ws, wz, s, z)
            c = Transpose <perm = [0, 2, 1]> (b)
            i = MatMulInteger(a, c, u, z)
            y = Cast <to = 1> (i)
        }""",
        A=whole(4, 8),
        B=whole(4, 8),
        **SCALES,
    )
    assert widths(check(graph, tolerance=0)) == {"QLinearMatMul_1": 8}


@pytest.mark.parametrize("scaled", ["", ", s, z"])
def test_qgemm_cuts_its_columns_their_scales_and_its_bias(scaled: str) -> None:
    graph = build(
        f"""{MICROSOFT} m (float[N, 4] x) => (float[N, 2] y) {{
            q = QuantizeLinear(x, s, z)
            h = com.microsoft.QGemm <transB = 1> (q, s, z, A, As, Az, c, t, u)
            k = com.microsoft.QGemm <alpha = 0.5> (h, t, u, B, ws, wz, "" {scaled})
            y = {"DequantizeLinear(k, s, z)" if scaled else "Identity(k)"}
        }}""",
        A=whole(8, 4),
        As=scales(8),
        Az=zeros(8),
        B=whole(8, 2),
        c=whole(8, kind=np.int32) * 20,
        **SCALES,
    )
    index = check(graph, tolerance=0)
    assert widths(index) == {"QGemm_1": 8}
    assert {(m.tensor, m.axis) for m in index.groups[0].members} == {
        ("A", 0), ("As", 0), ("Az", 0), ("c", 0), ("B", 0),
    }  # fmt: skip
    assert graph.dtypes["k"] == (onnx.TensorProto.UINT8 if scaled else onnx.TensorProto.FLOAT)
    assert foreseen(graph, index) == 4 * 8 + 8 * 2
    assert macs_of_cut(graph, index, QGemm_1=3) == 4 * 3 + 3 * 2


POOL = "<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>"
BETWEEN: dict[str, tuple[str, list[str]]] = {
    "two that meet": ("m = com.microsoft.QLinearAdd(a, t, u, b, s, z, t, u)", []),
    "their product": ("m = com.microsoft.QLinearMul(a, t, u, b, s, z, t, u)", []),
    "a constant": ("m = com.microsoft.QLinearMul(a, t, u, K, s, z, t, u)", []),
    "end to end": ("m = com.microsoft.QLinearConcat <axis = 1> (t, u, a, t, u, b, s, z)", ["QLinearConv_2"]),
    "a constant at the end": (
        "m = com.microsoft.QLinearConcat <axis = 1> (t, u, a, t, u, L, s, z)", ["QLinearConcat_2"],
    ),
    "leaky": ("m = com.microsoft.QLinearLeakyRelu <alpha = 0.2> (a, t, u, t, u)", []),
    "sigmoid": ("m = com.microsoft.QLinearSigmoid(a, t, u, t, u)", []),
    "pooled": (f"m = com.microsoft.QLinearAveragePool {POOL} (a, t, u, t, u)", []),
    "pooled whole": ("m = com.microsoft.QLinearGlobalAveragePool <channels_last = 0> (a, t, u, t, u)", []),
    "largest": ("m = MaxPool <kernel_shape = [3, 3]> (a)", []),
}  # fmt: skip


@pytest.mark.parametrize("name", BETWEEN)
def test_what_stands_between_quantized_convolutions_passes_the_channels(name: str) -> None:
    between, groups = BETWEEN[name]
    makes_b = "b = QLinearConv(q, s, z, U, ws, wz, s, z)" if ", b," in between else ""
    times = 2 if "Concat" in between else 1
    graph = build(
        f"""{MICROSOFT} m (float[1, 3, 5, 5] x) => (float[1, 2, A, B] y) {{
            q = QuantizeLinear(x, s, z)
            a = QLinearConv(q, s, z, W, ws, wz, t, u)
            {makes_b}
            {between}
            y8 = QLinearConv(m, t, u, V, ws, wz, s, z)
            y = DequantizeLinear(y8, s, z)
        }}""",
        W=whole(6, 3, 1, 1),
        U=whole(6, 3, 1, 1, seed=1),
        V=whole(2, 6 * times, 1, 1),
        K=whole(6, 1, 1, kind=np.uint8),
        L=whole(1, 6, 5, 5, kind=np.uint8),
        **SCALES,
    )
    index = check(graph, tolerance=0)
    assert widths(index) == dict.fromkeys(["QLinearConv_1", *groups], 6)
    assert graph.shapes["m"][:2] == (1, 6 * times)
    assert graph.dtypes["m"] == onnx.TensorProto.UINT8


def test_pooling_of_channels_that_are_last_is_refused() -> None:
    graph = build(
        f"""{MICROSOFT} m (float[N, 3, 5, 5] x) => (float[N, 2, 1, 5] y) {{
            q = QuantizeLinear(x, s, z)
            a = QLinearConv(q, s, z, W, ws, wz, t, u)
            g = com.microsoft.QLinearGlobalAveragePool <channels_last = 1> (a, t, u, t, u)
            y8 = QLinearConv(g, t, u, V, ws, wz, s, z)
            y = DequantizeLinear(y8, s, z)
        }}""",
        W=whole(6, 3, 1, 1),
        V=whole(2, 6, 1, 1),
        **SCALES,
    )
    index = build_index(graph)
    assert index.groups == ()
    assert "g" not in graph.shapes
    assert reasons(index)["QLinearGlobalAveragePool_2"] == "the channels are taken to be the last axis"


@pytest.mark.parametrize(("computed", "reason"), [
    ("ws", "the scale or zero point of the weight is computed, not constant"),
    ("V", "the weight or bias is computed, not constant"),
])  # fmt: skip
def test_a_computed_weight_or_scale_freezes_what_it_reads(computed: str, reason: str) -> None:
    kind = "float" if computed == "ws" else "int8[2, 6, 1, 1]"
    constants = {"W": whole(6, 3, 1, 1), "V": whole(2, 6, 1, 1), **SCALES, "as": SCALES["ws"]}
    del constants[computed]
    graph = build(
        f"""m (float[N, 3, 5, 5] x, {kind} {computed}) => (uint8[N, 2, 5, 5] y) {{
            q = QuantizeLinear(x, s, z)
            a = QLinearConv(q, s, z, W, as, wz, t, u)
            y = QLinearConv(a, t, u, V, ws, wz, s, z)
        }}""",
        **constants,
    )
    index = build_index(graph)
    assert index.groups == ()
    assert reasons(index) == {"QLinearConv_2": reason}


def test_a_removed_channel_is_its_zero_point_to_whoever_reads_it() -> None:
    graph = build(
        """m (float[1, 4] x) => (float[1, 2] y) {
            q = QuantizeLinear(x, s, z)
            h = QLinearMatMul(q, s, z, A, ws, wz, t, u)
            y8 = QLinearMatMul(h, t, u, B, ws, wz, s, z)
            y = DequantizeLinear(y8, s, z)
        }""",
        A=whole(4, 6),
        B=whole(6, 2),
        **SCALES,
    )
    index = build_index(graph)
    masked = masked_original(index, keep(index, QLinearMatMul_1=4), {})
    masked.graph.output.extend(onnx.ValueInfoProto(name=n) for n in ("h", masked.graph.node[-2].input[0]))
    _, before, read = run(masked, random_feeds(graph))
    assert read.dtype == before.dtype == np.uint8
    assert np.array_equal(read[:, :4], before[:, :4])
    assert (read[:, 4:] == SCALES["u"]).all()
    assert not (before[:, 4:] == SCALES["u"]).all()


def test_the_zero_point_tells_the_type_of_a_read_that_nothing_else_is_known_of() -> None:
    graph = build(
        """m (float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y) {
            q = QuantizeLinear(x, s, z)
            c = QLinearConv(q, s, z, W, ws, wz, t, u)
            y8 = QLinearConv(c, t, u, V, ws, wz, s, z)
            y = DequantizeLinear(y8, s, z)
        }""",
        W=whole(6, 3, 1, 1),
        V=whole(2, 6, 1, 1),
        **SCALES,
    )
    index = build_index(graph)
    mask = keep(index, QLinearConv_1=4)
    unknown = replace(
        graph,
        shapes={name: shape for name, shape in graph.shapes.items() if name != "c"},
        dtypes={name: dtype for name, dtype in graph.dtypes.items() if name != "c"},
    )
    feeds = random_feeds(graph)
    expected = run(masked_original(index, mask, {}), feeds)
    assert np.array_equal(run(masked_original(replace(index, graph=unknown), mask, {}), feeds), expected)


FLOAT = """m (float[N, 3, 16, 16] x) => (float[N, 10] y) {
    a = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, W, wb)
    r = Relu(a)
    d = Conv <pads = [1, 1, 1, 1], group = 16> (r, D, db)
    l = LeakyRelu <alpha = 0.1> (d)
    p = Conv (l, P, pb)
    s = Add(p, r)
    e = Conv <pads = [1, 1, 1, 1]> (s, E, eb)
    f = Sigmoid(e)
    c = Concat <axis = 1> (s, f)
    o = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c)
    v = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (o)
    g = GlobalAveragePool(v)
    h = Flatten(g)
    i = Gemm <transB = 1> (h, A, ab)
    j = Relu(i)
    k = MatMul(j, B)
    n = Relu(k)
    y = Gemm(n, C, cb)
}"""
SHAPES: dict[str, tuple[int, ...]] = {
    "W": (16, 3, 3, 3), "wb": (16,), "D": (16, 1, 3, 3), "db": (16,), "P": (16, 16, 1, 1), "pb": (16,),
    "E": (8, 16, 3, 3), "eb": (8,), "A": (24, 24), "ab": (24,), "B": (24, 12), "C": (12, 10), "cb": (10,),
}  # fmt: skip


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.batches = [{"x": rng.standard_normal((4, 3, 16, 16)).astype(np.float32)} for _ in range(3)]

    def get_next(self) -> dict[str, Array] | None:
        return self.batches.pop() if self.batches else None


def quantized(path: Path, *, per_channel: bool, kind: QuantType = QuantType.QUInt8) -> Path:
    """Writes the float model as ONNX Runtime's quantizer does, on operators of integers throughout."""
    onnx.save(proto(FLOAT, **SHAPES), path / "float.onnx")
    quantize_static(
        path / "float.onnx",
        path / "q.onnx",
        _Reader(),
        quant_format=QuantFormat.QOperator,
        per_channel=per_channel,
        activation_type=kind,
        weight_type=QuantType.QInt8,
    )
    return path / "q.onnx"


def macs_by_hand(stem: int, branch: int, hidden: int, last: int) -> int:
    convolutions = 64 * stem * (3 * 9 + 9 + stem) + 64 * branch * stem * 9
    return convolutions + (stem + branch) * hidden + hidden * last + last * 10


@pytest.mark.parametrize("kind", [QuantType.QUInt8, QuantType.QInt8])
@pytest.mark.parametrize("per_channel", [False, True])
def test_what_the_quantizer_of_onnx_runtime_writes_is_cut_throughout(
    tmp_path: Path, kind: QuantType, per_channel: bool
) -> None:
    graph = load(quantized(tmp_path, per_channel=per_channel, kind=kind))
    index = check(graph, tolerance=0)
    assert [g.n_channels for g in index.groups] == [16, 8, 24, 12]
    assert set(reasons(index).values()) == {"they are the model's output 'y'"}
    assert all(node.outputs[0] in graph.shapes for node in graph.nodes)
    assert foreseen(graph, index) == macs_by_hand(16, 8, 24, 12)
    names = [g.name for g in index.groups]
    assert macs_of_cut(graph, index, **dict(zip(names, (5, 3, 7, 2), strict=True))) == macs_by_hand(5, 3, 7, 2)


@pytest.mark.parametrize("per_channel", [False, True])
def test_parameters_and_bytes_of_what_stays_are_foreseen(tmp_path: Path, per_channel: bool) -> None:
    graph = load(quantized(tmp_path, per_channel=per_channel))
    index = build_index(graph)
    model = build_cost_model(index)
    n_weights = sum(int(np.prod(shape)) for shape in SHAPES.values())
    n_scales = sum(array.size for array in graph.constants.values() if array.dtype.kind == "f")
    assert model.cost(model.full).params == n_weights + n_scales
    for seed in range(3):
        mask = random_mask(index, seed)
        predicted = model.cost(np.array([mask[g.span].sum() for g in index.groups]))
        slim = from_proto(cut(index, mask))
        found = build_cost_model(build_index(slim))
        assert predicted.params == found.cost(found.full).params
        assert predicted.size_bytes == pytest.approx(found.cost(found.full).size_bytes, abs=200)


def test_a_quantized_model_goes_through_the_command_line(tmp_path: Path) -> None:
    source = quantized(tmp_path, per_channel=True)
    command = [sys.executable, "-c", "from bocr_onnx.cli.main import run; run()", "prune", str(source)]
    command += "--flops 0.6 --search uniform --recover none --history none --round-to 1 --json -o slim.onnx".split()
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["proof"]["passed"]
    assert report["proof"]["max_abs_diff"] == 0
    kept = [group["n_kept"] for group in report["groups"]]
    assert report["result"]["macs"] == macs_by_hand(*kept) <= 0.6 * macs_by_hand(16, 8, 24, 12)
    slim = {t.name: tuple(t.dims) for t in onnx.load(tmp_path / "slim.onnx").graph.initializer}
    assert slim["P_quantized"] == (kept[0], kept[0], 1, 1)
    assert slim["P_scale"] == slim["pb_quantized"] == (kept[0],)
