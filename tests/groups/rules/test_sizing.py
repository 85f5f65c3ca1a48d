from __future__ import annotations

import numpy as np
import pytest

from bocr_onnx.graph import ModelGraph
from bocr_onnx.slimming import cut
from tests.oracle import Constant, build, check, random_mask, reasons, widths

CONV = {"W": (6, 3, 1, 1), "V": (2, 6, 1, 1)}
TWICE = np.array([1, 1, 2, 2], np.float32)


def scaled(node: str, opset: int = 17, batch: str = "N", **constants: Constant) -> ModelGraph:
    return build(
        f"""m (float[{batch}, 3, 4, 4] x) => (float[{batch}, 2, 8, 8] y) {{
            c = Conv(x, W)
            {node}
            y = Conv(r, V)
        }}""",
        opset=opset,
        **CONV,
        **constants,
    )


RESIZES: dict[str, tuple[int, str, dict[str, Constant]]] = {
    "Resize 10": (10, "r = Resize(c, scales)", {"scales": TWICE}),
    "Resize 13": (13, 'r = Resize <mode = "linear"> (c, , scales)', {"scales": TWICE}),
    "Resize 18": (18, "r = Resize <axes = [2, 3]> (c, , scales)", {"scales": TWICE[2:]}),
    "Resize 18 by sizes": (18, "r = Resize <axes = [2, 3]> (c, , , sizes)", {"sizes": [8, 8]}),
    "Upsample 7": (7, "r = Upsample <scales = [1.0, 1.0, 2.0, 2.0]> (c)", {}),
    "Upsample 9": (9, "r = Upsample(c, scales)", {"scales": TWICE}),
}


@pytest.mark.parametrize("case", RESIZES)
def test_space_is_scaled_and_the_channels_pass(case: str) -> None:
    opset, node, constants = RESIZES[case]
    assert widths(check(scaled(node, opset, **constants))) == {"Conv_0": 6}


@pytest.mark.parametrize("opset", [11, 13])
def test_constant_sizes_follow_the_channels(opset: int) -> None:
    roi = {"roi": np.zeros(0, np.float32), "scales": np.zeros(0, np.float32)} if opset == 11 else {}
    node = f"r = Resize(c, {'roi, scales' if roi else ', '}, sizes)"
    graph = scaled(node, opset, batch="1", sizes=[1, 6, 8, 8], **roi)
    index = check(graph)
    assert widths(index) == {"Conv_0": 6}
    mask = random_mask(index, 0)
    stored = {t.name: t for t in cut(index, mask).graph.initializer}
    assert np.frombuffer(stored["sizes"].raw_data, np.int64).tolist() == [1, mask.sum(), 8, 8]


def test_sizes_computed_from_the_shape_follow_the_channels() -> None:
    """As torch writes interpolate(size=...) with an open batch."""
    node = "s = Shape(c) v = Slice(s, k0, k2) sizes = Concat <axis = 0> (v, k88) r = Resize(c, , , sizes)"
    assert widths(check(scaled(node, k0=[0], k2=[2], k88=[8, 8]))) == {"Conv_0": 6}


def test_sizes_read_off_another_tensor_of_the_same_width_stay_apart() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x, float[N, 3, 8, 8] z) => (float[N, 2, 8, 8] y) {
            c = Conv(x, W)
            d = Conv(z, U)
            s = Shape(c)
            v = Slice(s, k0, k2)
            t = Shape(d)
            hw = Slice(t, k2, k4)
            sizes = Concat <axis = 0> (v, hw)
            r = Resize(c, , , sizes)
            j = Concat <axis = 1> (r, d)
            y = Conv(j, V)
        }""",
        k0=[0],
        k2=[2],
        k4=[4],
        W=(6, 3, 1, 1),
        U=(5, 3, 1, 1),
        V=(2, 11, 1, 1),
    )
    assert widths(check(graph)) == {"Conv_0": 6, "Conv_1": 5}


def test_channels_that_are_scaled_are_frozen() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            c = Conv(x, W)
            r = Resize(c, , scales)
            d = Conv(r, U)
            y = Conv(d, V)
        }""",
        scales=np.array([1, 2, 1, 1], np.float32),
        W=(6, 3, 1, 1),
        U=(5, 12, 1, 1),
        V=(2, 5, 1, 1),
    )
    index = check(graph)
    assert widths(index) == {"Conv_2": 5}
    assert reasons(index)["Resize_1"] == "Resize scales the channel axis"


GATED = """m (float[{batch}, 3, 4, 4] x) => (float[{batch}, 2, 4, 4] y) {{
    c = Conv(x, W)
    g = GlobalAveragePool(c)
    {nodes}
    m = Mul(c, e)
    y = Conv(m, V)
}}"""


@pytest.mark.parametrize(
    ("nodes", "batch", "constants"),
    [
        ("s = Shape(c) e = Expand(g, s)", "N", {}),
        ("s = Shape(c) v = Slice(s, k0, k2) t = Concat <axis = 0> (v, k44) e = Expand(g, t)", "N",
         {"k0": [0], "k2": [2], "k44": [4, 4]}),
        ("e = Expand(g, t)", "N", {"t": [1, 6, 4, 4]}),
        ("e = Expand(g, t)", "N", {"t": [1, 1, 4, 4]}),
        ("e = Expand(g, t)", "N", {"t": [4, 4]}),
        ("e = Tile(g, t)", "N", {"t": [1, 1, 4, 4]}),
    ],
)  # fmt: skip
def test_a_gate_is_spread_over_space(nodes: str, batch: str, constants: dict[str, Constant]) -> None:
    assert widths(check(build(GATED.format(nodes=nodes, batch=batch), **CONV, **constants))) == {"Conv_0": 6}


@pytest.mark.parametrize(
    "nodes", ["s = Shape(c) e = Expand(k, s)", "s = Shape(c) e = ConstantOfShape <value = float[1] {2.0}> (s)"]
)
def test_what_is_as_large_as_the_stream_takes_its_channels(nodes: str) -> None:
    constants = {"k": np.array([2], np.float32)} if "(k, s)" in nodes else {}
    assert widths(check(build(GATED.format(nodes=nodes, batch="N"), **CONV, **constants))) == {"Conv_0": 6}


def test_a_map_of_one_channel_takes_the_width_it_is_expanded_to() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            c = Conv(x, W)
            a = Conv(c, A)
            s = Shape(c)
            e = Expand(a, s)
            m = Mul(c, e)
            y = Conv(m, V)
        }""",
        A=(1, 6, 1, 1),
        **CONV,
    )
    assert widths(check(graph)) == {"Conv_0": 6}


def test_a_tile_of_the_channels_repeats_them() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            c = Conv(x, W)
            t = Tile(c, twice)
            y = Conv(t, V)
        }""",
        twice=[1, 2, 1, 1],
        W=(6, 3, 1, 1),
        V=(2, 12, 1, 1),
    )
    index = check(graph)
    assert widths(index) == {"Conv_0": 6}
    assert [(m.tensor, m.width) for m in index.groups[0].members] == [("W", 6), ("V", 12)]


def test_a_weight_that_is_a_constant_of_a_shape_is_cut() -> None:
    graph = build(
        """m (float[N, 16, 4, 4] x) => (float[N, 2, 4, 4] y) {
            U = ConstantOfShape <value = float[1] {0.25}> (shape)
            c = Conv(x, W)
            d = Conv(c, U)
            y = Conv(d, V)
        }""",
        shape=[6, 6, 1, 1],
        W=(6, 16, 3, 3),
        V=(2, 6, 1, 1),
    )
    assert widths(check(graph)) == {"Conv_1": 6, "Conv_2": 6}
