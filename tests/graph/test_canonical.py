from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from bocr_onnx.cost import build_cost_model
from bocr_onnx.graph import ModelGraph, from_proto, load, random_feeds
from bocr_onnx.graph.canonical import ACTIVATIONS, canonical
from bocr_onnx.groups import build_index
from bocr_onnx.runtime import run_once
from bocr_onnx.slimming import compare, cut
from tests.oracle import build, check, foreseen, proto, widths

HEADER = '<ir_version: 8, opset_import: ["" : {opset}, "com.microsoft" : 1]>'
FUSED = """m (float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y) {{
    a = com.microsoft.FusedConv <pads = [1, 1, 1, 1]{activation}> (x, w, b)
    s = Conv(x, k)
    c = com.microsoft.FusedConv <pads = [1, 1, 1, 1], activation = "Relu"> (a, v, d, s)
    y = Conv(c, u)
}}"""
CONSTANTS = {"w": (8, 3, 3, 3), "b": (8,), "k": (6, 3, 1, 1), "v": (6, 8, 3, 3), "d": (6,), "u": (4, 6, 1, 1)}
PARAMETERS = {"LeakyRelu": "[0.3]", "HardSigmoid": "[0.3, 0.4]", "Clip": "[-0.1, 0.4]"}


GEMMS_ALONE = {"Elu", "Selu", "Softplus", "Softsign", "ThresholdedRelu"}
"""Activations that ONNX Runtime fuses with Gemm and not with convolutions."""


@pytest.mark.parametrize("op", ACTIVATIONS)
def test_a_fused_product_is_read_as_its_parts_and_cut(op: str) -> None:
    parameters = "".join(f", activation_{name} = 0.3" for name in ACTIVATIONS[op] if name != "max")
    graph = build(
        HEADER.format(opset=13)
        + f"""m (float[N, 5] x) => (float[N, 4] y) {{
            a = com.microsoft.FusedGemm <transB = 1, activation = "{op}"{parameters}> (x, w, b)
            y = Gemm <transB = 1> (a, v)
        }}""",
        w=(8, 5), b=(8,), v=(4, 8),
    )  # fmt: skip
    assert [node.op for node in graph.nodes] == ["Gemm", op, "Gemm"]
    assert list(widths(build_index(graph)).values()) == [8]
    if op != "Clip":  # which needs both ends, and ONNX Runtime reads none
        feeds = random_feeds(graph, batch=2)
        assert compare(run_once(graph.written, feeds), run_once(graph.proto, feeds)).max_rel_diff < 1e-6
        check(graph)


def test_names_that_are_there_already_are_not_given_again() -> None:
    graph = build(
        HEADER.format(opset=13)
        + """m (float[N, 5] x) => (float[N, 4] y, float[N, 5] z) {
            a.0 = Relu(x) z = Neg(a.0)
            a = com.microsoft.FusedGemm <transB = 1, activation = "Relu"> (x, w)
            y = Gemm <transB = 1> (a, v)
        }""".replace("a.0", "a_0"),
        w=(8, 5), v=(4, 8),
    )  # fmt: skip
    made = onnx.ModelProto.FromString(graph.written.SerializeToString().replace(b"a_0", b"a.0"))
    assert sorted(widths(check(from_proto(made))).values()) == [8]


@pytest.mark.parametrize("opset", [9, 13])
@pytest.mark.parametrize("op", ["", *(op for op in ACTIVATIONS if op not in GEMMS_ALONE)])
def test_a_fused_convolution_is_read_as_its_parts_and_cut(op: str, opset: int) -> None:
    activation = f', activation = "{op}"' if op else ""
    if op in PARAMETERS:
        activation += f", activation_params = {PARAMETERS[op]}"
    graph = build(HEADER.format(opset=opset) + FUSED.format(activation=activation), **CONSTANTS)
    assert {node.domain for node in graph.nodes} == {""}
    assert [o.domain for o in graph.proto.opset_import] == [""]
    assert graph.written is not None
    feeds = random_feeds(graph, batch=2)
    assert compare(run_once(graph.written, feeds), run_once(graph.proto, feeds)).max_rel_diff < 1e-6
    assert sorted(widths(check(graph)).values()) == [6, 8]


def test_an_unknown_fused_activation_is_left_and_listed() -> None:
    text = FUSED.format(activation=', activation = "Swirl"')
    graph = build(HEADER.format(opset=13) + text, **CONSTANTS)
    refused = {r.op: r.reason for r in build_index(graph).refusals}
    assert refused["FusedConv"].startswith("operator com.microsoft.FusedConv has no rule; prune the file before")


ATTENTION = """m (float[1, 3, 16, 16] x) => (float[1, 4] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w, b) r = Relu(a)
    c = Conv <pads = [1, 1, 1, 1]> (r, v, d) t = Add(c, r) s = Relu(t)
    f = Reshape(s, flat) g = Transpose <perm = [0, 2, 1]> (f)
    q = MatMul(g, wq) k = MatMul(g, wk) kt = Transpose <perm = [0, 2, 1]> (k)
    l = MatMul(q, kt) h = Mul(l, half) p = Softmax(h) o = MatMul(p, g)
    m = ReduceMean <axes = [1], keepdims = 0> (o)
    n = Gemm <transB = 1> (m, u, e) nr = Relu(n)
    z = MatMul(nr, ug) zb = Add(z, bg)
    e0 = Mul(zb, root) e1 = Erf(e0) e2 = Add(e1, one) e3 = Mul(zb, e2) e4 = Mul(e3, half)
    y = Gemm <transB = 1> (e4, last)
}"""
ATTENDED = {
    "w": (8, 3, 3, 3), "b": (8,), "v": (8, 8, 3, 3), "d": (8,), "wq": (8, 6), "wk": (8, 6), "u": (6, 8), "e": (6,),
    "ug": (6, 6), "bg": (6,), "last": (4, 6), "flat": [0, 8, 256], "half": np.float32(0.5), "one": np.float32(1),
    "root": np.float32(0.70710677),
}  # fmt: skip


def optimized(path: Path, level: str) -> ModelGraph:
    """Returns what ONNX Runtime saves of the model above."""
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4
    model = proto(ATTENTION, **ATTENDED).SerializeToString()
    ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return load(path)


def test_what_onnxruntime_saves_is_cut_as_the_model_itself(tmp_path: Path) -> None:
    graph = optimized(tmp_path / "m.onnx", "EXTENDED")
    assert graph.written is not None
    assert {n.op_type for n in graph.written.graph.node} >= {"FusedConv", "FusedGemm", "FusedMatMul"}
    plain = from_proto(proto(ATTENTION, **ATTENDED))
    assert sorted(widths(check(graph)).values()) == sorted(widths(build_index(plain)).values())
    assert foreseen(graph, build_index(graph)) == foreseen(plain, build_index(plain))


def test_what_the_cpu_alone_can_read_is_refused_with_its_macs(tmp_path: Path) -> None:
    graph = optimized(tmp_path / "m.onnx", "ALL")
    if not any(node.domain == "com.microsoft.nchwc" for node in graph.nodes):
        pytest.skip("this CPU has no blocked layout")
    index = build_index(graph)
    plain = from_proto(proto(ATTENTION, **ATTENDED))
    refused = [r for r in index.refusals if r.op == "Conv"]
    assert len(refused) == 2
    assert all(r.reason.endswith("prune the file before ONNX Runtime has optimized it") for r in refused)
    cost, whole = build_cost_model(index), build_cost_model(build_index(plain))
    by_refusal = [sum(cost.node_macs[i] for i in r.nodes) for r in refused]
    assert min(by_refusal) >= 256 * 8 * 27  # more where the blocks are padded
    assert cost.cost(cost.full).macs >= whole.cost(whole.full).macs


TWINS = """m (float[N, 3, 8, 8] p, float[N, 3, 8, 8] q) => (float[N, 5, 8, 8] y) {
    wi = Identity(w) bi = Identity(b) wii = Identity(wi)
    a = Conv <pads = [1, 1, 1, 1]> (p, w, b) ar = Relu(a)
    c = Conv <pads = [1, 1, 1, 1]> (q, wii, bi) cr = Relu(c)
    vi = Identity(v)
    d = Conv(ar, v) dr = Relu(d)
    e = Conv(cr, vi) er = Relu(e)
    m = Sub(dr, er)
    y = Conv(m, u)
}"""


def test_a_weight_handed_on_stays_one() -> None:
    graph = build(TWINS, w=(8, 3, 3, 3), b=(8,), v=(6, 8, 1, 1), u=(5, 6, 1, 1))
    index = check(graph)
    assert sorted(widths(index).values()) == [6, 8]
    slim = cut(index, np.arange(14) % 2 == 0)
    assert sorted(t.name for t in slim.graph.initializer) == ["b", "u", "v", "w"]
    assert not [n for n in slim.graph.node if n.op_type == "Identity"]


def test_a_constant_that_is_an_output_or_read_by_a_subgraph_stays() -> None:
    model = proto(
        """m (float[N, 3] x, bool t) => (float[3] k, float[A, B] y) {
            k = Identity(w) g = Identity(v)
            y = If (t) <then_branch = a () => (float[A, B] s) { s = Add(x, g) },
                        else_branch = b () => (float[A, B] z) { z = Add(x, k) }>
        }""",
        w=(3,),
        v=(3,),
    )
    assert canonical(model) is model
