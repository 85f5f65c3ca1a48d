from __future__ import annotations

import numpy as np
import pytest

from bocr_onnx.errors import ModelError
from bocr_onnx.graph import infer
from tests.oracle import build


def test_what_follows_from_shapes_alone_is_a_value_and_no_constant() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 48] y) {
            s = Shape(x)
            n = Gather(s, zero)
            u = Unsqueeze(n, first)
            t = Concat <axis = 0> (u, rest)
            y = Reshape(x, t)
        }""",
        zero=np.array(0, np.int64),
        first=[0],
        rest=[-1],
    )
    assert {k: v.tolist() for k, v in graph.values.items()} == {"s": [1, 3, 4, 4], "n": 1, "u": [1], "t": [1, -1]}
    assert set(graph.constants) == {"zero", "first", "rest"}
    assert graph.shapes["y"] == (1, 48)


def test_what_follows_from_constants_alone_is_a_constant() -> None:
    graph = build(
        """m (float[N, 3] x) => (float[N, 6] y) {
            i = Neg(A)
            t = Transpose(i)
            two = Constant <value_float = 2.0> ()
            w = Mul(t, two)
            s = Shape(A)
            y = MatMul(x, w)
        }""",
        A=(6, 3),
    )
    assert np.array_equal(graph.constants["i"], -graph.constants["A"])
    assert np.array_equal(graph.constants["w"], -2 * graph.constants["A"].T)
    assert graph.constants["s"].tolist() == [6, 3]
    assert graph.values == {}
    assert graph.shapes["y"] == (1, 6)


@pytest.mark.parametrize(
    ("window", "found", "fixed"),
    [("start = 1, end = 3", [3, 4], True), ("start = -2", [4, 5], True), ("end = -3", [1], False)],
)
def test_a_window_of_a_shape_is_constant_where_no_axis_in_it_is_open(
    window: str, found: list[int], fixed: bool
) -> None:
    graph = build(f"m (float[N, 3, 4, 5] x) => (int64[K] y) {{ y = Shape <{window}> (x) }}")
    known, other = (graph.constants, graph.values) if fixed else (graph.values, graph.constants)
    assert known["y"].tolist() == found
    assert "y" not in other


def test_constant_of_shape_is_filled() -> None:
    graph = build("m (float[N] x) => (float[2, 3] y) { y = ConstantOfShape(k) }", k=[2, 3])
    assert graph.constants["y"].tolist() == [[0, 0, 0], [0, 0, 0]]


BOMBS = {
    "ConstantOfShape": "y = ConstantOfShape(k)",
    "Expand": "y = Expand(one, k)",
    "Tile": "y = Tile(one, k)",
    "Add": "a = Expand(one, rows) b = Expand(one, columns) y = Add(a, b)",
    "MatMul": "a = Expand(one, rows) b = Expand(one, columns) y = MatMul(a, b)",
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("limit", [99 * 99, 100 * 100])
def test_what_is_too_large_is_not_computed(bomb: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An untrusted file may ask for terabytes; two small factors are enough."""
    monkeypatch.setattr(infer, "MAX_FOLDED_ELEMENTS", limit)
    text = f"m (float[N] x) => (float[100, 100] y) {{ {BOMBS[bomb]} }}"
    constants = {"k": [100, 100], "one": np.ones((1, 1), np.float32), "rows": [100, 1], "columns": [1, 100]}
    graph = build(text, **{k: v for k, v in constants.items() if k in text})
    assert ("y" in graph.constants) is (limit == 100 * 100)
    assert graph.shapes["y"] == (100, 100)


def test_a_terabyte_is_not_computed() -> None:
    graph = build("m (float[N] x) => (float[A, B] y) { y = ConstantOfShape(k) }", k=[1 << 14, 8193])
    assert "y" not in graph.constants
    assert graph.shapes["y"] == (1 << 14, 8193)
    with pytest.raises(ModelError, match="must have at most"):
        build("m (float[N] x) => (float[A, B] y) { y = ConstantOfShape(k) }", k=[1 << 20, 1 << 20])


def test_a_custom_operator_leaves_shapes_unknown_but_not_those_beside_it() -> None:
    graph = build(
        """<ir_version: 8, opset_import: ["" : 17, "acme" : 1]>
        m (float[N, 3] x) => (float[N, 3] y, float[N, 3] w) { q = acme.Mystery(x) y = Relu(q) w = Neg(x) }"""
    )
    assert "q" not in graph.shapes
    assert "y" not in graph.shapes
    assert graph.shapes["w"] == (1, 3)


def test_random_numbers_are_no_constants() -> None:
    graph = build("m (float[2] x) => (float[2] y) { r = RandomNormal <shape = [2]> () y = Add(x, r) }")
    assert "r" not in graph.constants
    assert graph.shapes["y"] == (2,)


@pytest.mark.parametrize("opset", [13, 19, 21])
def test_dequantized_weights_are_constants(opset: int) -> None:
    graph = build(
        "m (float[N, 2] x) => (float[N, 2] y) { w = DequantizeLinear(q, s) y = MatMul(x, w) }",
        q=np.array([[1, 2], [3, 4]], np.int8),
        s=np.array(0.5, np.float32),
        opset=opset,
    )
    assert graph.constants["w"].tolist() == [[0.5, 1.0], [1.5, 2.0]]


BRANCHES = """m (float[2] x, bool b) => (float[K] y) {{
    k = Constant <value_int = 1> () c = Cast <to = 9> (k)
    q = If ({condition}) <
        then_branch = t () => (float[K] a) {{ r = Relu(x) a = {taken} }},
        else_branch = e () => (float[K] a) {{ a = Concat <axis = 0> (x, x) }}
    >
    y = Relu(q)
}}"""


@pytest.mark.parametrize(
    ("condition", "taken", "shape"),
    [("b", "Neg(r)", None), ("c", "Neg(r)", (2,)), ("b", "Concat <axis = 0> (x, r)", (4,))],
)
def test_the_shape_after_an_if_is_what_its_branches_agree_on(
    condition: str, taken: str, shape: tuple[int, ...] | None
) -> None:
    graph = build(BRANCHES.format(condition=condition, taken=taken))
    assert graph.shapes.get("q") == shape
    assert graph.shapes.get("y") == shape


def test_the_folding_of_an_operator_that_cannot_be_evaluated_is_no_error() -> None:
    graph = build("m (float[2] x) => (float[2] y) { r = Reshape(k, bad) y = Relu(x) }", k=(4,), bad=[3, 7])
    assert "r" not in graph.constants
    assert graph.shapes["y"] == (2,)


@pytest.mark.parametrize(
    ("call", "opset"),
    [
        ("GroupNormalization <num_groups = 3> (x, s, s)", 21),
        ("MeanVarianceNormalization(x)", 17),
        ("GreaterOrEqual(x, h)", 17),
        ("Swish(x)", 24),
    ],
)
def test_operators_that_are_defined_by_their_body(call: str, opset: int) -> None:
    graph = build(
        f"m (float[N, 6, 4, 4] x) => (float[N, 6, 4, 4] y) {{ r = {call} y = CastLike(r, x) }}",
        opset=opset,
        ir=10,
        s=(6,),
        h=np.array(0.5, np.float32),
    )
    assert graph.shapes["r"] == (1, 6, 4, 4)


def test_what_the_file_declares_counts_where_nothing_else_is_known() -> None:
    graph = build(
        """<ir_version: 8, opset_import: ["" : 17, "acme" : 1]>
        m (float[N, 3] x) => (float[N, 3] y, float[N, 3] z)
        <float[N, 3] q, float[M, 3] r, float[N, 7] s>
        { q = acme.Mystery(x) y = Relu(q) r = acme.Mystery(x) z = Relu(r) s = Neg(x) }"""
    )
    assert graph.shapes["y"] == (1, 3)
    assert "r" not in graph.shapes
    assert graph.shapes["s"] == (1, 3)


@pytest.mark.parametrize("inputs", ["", "foreign, s, z, q, s, z", "q, s, z, foreign, s, z"])
def test_a_quantized_operator_on_what_is_unknown_has_no_shape(inputs: str) -> None:
    graph = build(
        f"""<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1, "acme" : 1]>
        m (uint8[2, 4] q, float s, uint8 z) => (uint8[A, B] y, uint8[2, 4] k) {{
            foreign = acme.Mix(q)
            y = com.microsoft.QLinearAdd({inputs}{", s, z" if inputs else ""})
            k = com.microsoft.QLinearAdd(q, s, z, q, s, z, s, z)
        }}"""
    )
    assert "y" not in graph.shapes
    assert graph.shapes["k"] == (2, 4)
