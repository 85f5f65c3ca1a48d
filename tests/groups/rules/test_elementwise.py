from __future__ import annotations

import numpy as np
import pytest

from bocr_onnx.groups import Member, build_index
from bocr_onnx.groups.rules.elementwise import UNARY
from bocr_onnx.slimming import cut
from tests.oracle import build, check, random_mask, reasons, widths

CONV = {"W": (6, 3, 1, 1), "V": (2, 6, 1, 1)}
BLOCKS = {**CONV, "U": (6, 6, 3, 3)}


def between(node: str, **settings: object) -> str:
    return f"""m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {{ c = Conv(x, W) {node} y = Conv(e, V) }}"""


@pytest.mark.parametrize(
    "op", ["Relu", "LeakyRelu", "Elu", "Selu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Erf", "Abs", "Neg",
           "Softplus", "Softsign", "Exp", "Sin", "Round", "Celu", "Identity", "Mish", "Sign", "ThresholdedRelu"]
)  # fmt: skip
def test_an_activation_passes_its_channels(op: str) -> None:
    assert op in UNARY
    graph = build(between(f"e = {op}(c)"), opset=18, **CONV)
    assert widths(check(graph, seeds=(0,))) == {"Conv_0": 6}


@pytest.mark.parametrize("op", ["Affine", "ParametricSoftplus", "ScaledTanh"])
def test_an_experiment_that_onnx_gave_up_passes_its_channels(op: str) -> None:
    graph = build(between(f"e = {op} <alpha = 1.5, beta = 0.5> (c)"), opset=8, ir=4, **CONV)
    assert graph.shapes["e"] == (1, 6, 4, 4), "without a shape nothing after it has MACs"
    assert widths(check(graph)) == {"Conv_0": 6}


def test_what_an_image_scaler_gives_has_a_shape() -> None:
    nodes = "s = ImageScaler <scale = 0.5, bias = [0.1, 0.2, 0.3]> (x) c = Conv(s, W) y = Conv(c, V)"
    graph = build(f"m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {{ {nodes} }}", opset=8, ir=4, **CONV)
    assert graph.shapes["s"] == (1, 3, 4, 4)
    assert widths(check(graph)) == {"Conv_1": 6}


def test_relu6_as_clip_with_scalar_bounds() -> None:
    bounds = {"lo": np.array(0, np.float32), "hi": np.array(6, np.float32)}
    assert widths(check(build(between("e = Clip(c, lo, hi)"), **CONV, **bounds))) == {"Conv_0": 6}
    assert widths(check(build(between("e = Clip <max = 6.0, min = 0.0> (c)"), opset=9, **CONV))) == {"Conv_0": 6}


def test_cast_to_half_and_back() -> None:
    graph = build(between("h = Cast <to = 10> (c) e = Cast <to = 1> (h)"), **CONV)
    assert widths(check(graph)) == {"Conv_0": 6}


def test_dropout_passes_its_channels() -> None:
    assert widths(check(build(between("e = Dropout(c)"), **CONV))) == {"Conv_0": 6}


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("shape", [(6, 1, 1), (1, 6, 1, 1), (6, 4, 4), (6, 1, 4)])
@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
def test_a_constant_per_channel_is_cut_with_the_channels(op: str, shape: tuple[int, ...], left: bool) -> None:
    k = np.random.default_rng(0).uniform(0.5, 2, shape).astype(np.float32)
    arguments = "k, p" if left else "p, k"
    graph = build(between(f"p = Sigmoid(c) e = {op}({arguments})"), k=k, **CONV)
    index = check(graph)
    assert widths(index) == {"Conv_0": 6}
    axis = shape.index(6)
    assert Member(f"{op}_2", op, "k", axis, 6) in index.groups[0].members
    kept = random_mask(index, 0)
    slim = cut(index, kept)
    found = next(t for t in slim.graph.initializer if t.name == "k")
    assert tuple(found.dims) == (*shape[:axis], kept.sum(), *shape[axis + 1 :])


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Pow", "Min", "Max"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1), (1, 1, 4, 4)])
def test_a_constant_for_all_channels_stays(op: str, shape: tuple[int, ...]) -> None:
    k = np.random.default_rng(0).uniform(0.5, 2, shape).astype(np.float32)
    graph = build(between(f"p = Sigmoid(c) e = {op}(p, k)"), k=k, **CONV)
    index = check(graph, seeds=(0,))
    assert [m.tensor for m in index.groups[0].members] == ["W", "V"]


def test_a_spatial_axis_as_long_as_the_channels_is_not_mistaken_for_them() -> None:
    graph = build(
        "m (float[N, 3, 6, 6] x) => (float[N, 2, 6, 6] y) { c = Conv(x, W) e = Add(c, k) y = Conv(e, V) }",
        k=(6, 6),
        **CONV,
    )
    index = check(graph)
    assert [m.tensor for m in index.groups[0].members] == ["W", "V"]


@pytest.mark.parametrize("shape", [(6, 1, 1), (1, 1, 1), (1,)])
def test_prelu_slopes(shape: tuple[int, ...]) -> None:
    index = check(build(between("e = PRelu(c, k)"), k=shape, **CONV))
    assert ("k" in [m.tensor for m in index.groups[0].members]) is (6 in shape)


def test_where_joins_both_branches() -> None:
    graph = build(
        between("d = Conv(x, T) g = Greater(c, zero) e = Where(g, c, d)"),
        zero=np.array(0, np.float32),
        T=(6, 3, 1, 1),
        **CONV,
    )
    index = check(graph)
    assert widths(index) == {"Conv_0": 6}
    assert {m.tensor for m in index.groups[0].members} == {"W", "T", "V"}


def test_squeeze_and_excitation_joins_the_gate_with_what_it_scales() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            c = Conv(x, W)
            g = GlobalAveragePool(c)
            s = Conv(g, S, sb)
            r = Relu(s)
            t = Conv(r, T, tb)
            a = Sigmoid(t)
            e = Mul(c, a)
            y = Conv(e, V)
        }""",
        S=(4, 6, 1, 1),
        sb=np.full(4, 0.5, np.float32),
        T=(6, 4, 1, 1),
        tb=(6,),
        **CONV,
    )
    index = check(graph)
    assert widths(index) == {"Conv_0": 6, "Conv_2": 4}
    tensors = [[(m.tensor, m.axis) for m in g.members] for g in index.groups]
    assert tensors[0] == [("W", 0), ("S", 1), ("T", 0), ("tb", 0), ("V", 1)]
    assert tensors[1] == [("S", 0), ("sb", 0), ("T", 1)]


@pytest.mark.parametrize("skip", ["c", "i"], ids=["plain", "through Identity"])
@pytest.mark.parametrize("op", ["Add", "Sum", "Sub", "Mul"])
def test_a_residual_joins_the_stream_with_the_branch(skip: str, op: str) -> None:
    graph = build(
        between(f"i = Identity(c) r = Relu(c) b = Conv <pads = [1, 1, 1, 1]> (r, U) e = {op}(b, {skip})"), **BLOCKS
    )
    index = check(graph)
    assert widths(index) == {"Conv_0": 6}
    assert {(m.tensor, m.axis) for m in index.groups[0].members} == {("W", 0), ("U", 0), ("U", 1), ("V", 1)}


def test_a_sum_of_three_joins_all() -> None:
    graph = build(between("d = Conv(x, T) f = Conv(x, S) e = Sum(c, d, f)"), T=(6, 3, 1, 1), S=(6, 3, 1, 1), **CONV)
    assert widths(check(graph)) == {"Conv_0": 6}


def test_what_meets_the_input_is_frozen_and_the_rest_is_cut() -> None:
    graph = build(
        """m (float[N, 6, 4, 4] x) => (float[N, 2, 4, 4] y) {
            c = Conv(x, U)
            a = Add(c, x)
            d = Conv(a, W)
            r = Relu(d)
            y = Conv(r, V)
        }""",
        U=(6, 6, 1, 1),
        W=(8, 6, 1, 1),
        V=(2, 8, 1, 1),
    )
    index = check(graph)
    assert widths(index) == {"Conv_2": 8}
    refusal = next(r for r in index.refusals if r.node == "Add_1")
    assert refusal.reason == "it meets 'x', whose channels cannot be cut"
    assert (refusal.n_channels, refusal.nodes) == (6, (0, 2))


def test_a_map_of_one_channel_broadcasts_and_ties_nothing() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x, float[N, 1, 4, 4] z) => (float[N, 2, 4, 4] y) {
            c = Conv(x, W)
            e = Mul(c, z)
            y = Conv(e, V)
        }""",
        **CONV,
    )
    assert widths(check(graph)) == {"Conv_0": 6}


def test_an_unknown_shape_freezes() -> None:
    graph = build(
        """<ir_version: 8, opset_import: ["" : 17, "acme" : 1]>
        m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            c = Conv(x, W)
            q = acme.Mystery(x)
            e = Add(c, q)
            y = Conv(e, V)
        }""",
        **CONV,
    )
    index = build_index(graph)
    assert index.groups == ()
    assert reasons(index)["Add_2"] == "a shape is unknown"
