from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from bocr_onnx.cost.full import full_macs
from bocr_onnx.graph import ModelGraph, from_proto
from bocr_onnx.groups import build_index
from bocr_onnx.slimming import cut
from tests.oracle import build, check, foreseen, random_mask, reasons, widths

GATES = {"GRU": 3, "LSTM": 4, "RNN": 1}
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
SIZES = "s = Shape(x) n = Gather <axis = 0> (s, k0) z = Concat <axis = 0> (kd, n, k5) "
"""The sizes of a state, as exporters write them for an open batch."""
ZEROS = "i = ConstantOfShape(z)"
ZERO = np.zeros(1, np.float32)


def weights(
    op: str, n_channels: int, n_units: int, n_directions: int = 1, *, peepholes: bool = False
) -> dict[str, Any]:
    rows = GATES[op] * n_units
    made: dict[str, Any] = {
        "W": (n_directions, rows, n_channels), "R": (n_directions, rows, n_units), "B": (n_directions, 2 * rows),
    }  # fmt: skip
    return {**made, "P": (n_directions, 3 * n_units)} if peepholes else made


def network(
    op: str = "LSTM",
    *,
    direction: str = "forward",
    inputs: str = "B",
    attributes: str = "",
    before: str = "",
    outputs: str = "y, h",
    after: str = "q = Transpose <perm = [0, 2, 1, 3]> (y) f = Reshape(q, flat) o = MatMul(f, V)",
    out: str = "7, N, 2",
    batch: str = "N",
    **constants: Any,
) -> ModelGraph:
    """Conv (6 channels, 7 steps) -> recurrent operator (5 units) -> MatMul."""
    n = DIRECTIONS[direction]
    made = {**weights(op, 6, 5, n), "K": (6, 3, 3), "V": (5 * n, 2), "flat": [0, 0, -1], **constants}
    text = f"""m (float[{batch}, 3, 9] x) => (float[{out}] o) {{
        {before}
        c = Conv(x, K)
        t = Transpose <perm = [2, 0, 1]> (c)
        {outputs} = {op} <hidden_size = 5, direction = "{direction}"{attributes}> (t, W, R, {inputs})
        {after}
    }}"""
    names = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
    return build(text, **{name: value for name, value in made.items() if name in names})


@pytest.mark.parametrize(("op", "direction", "inputs"), list(product(GATES, DIRECTIONS, ["", "B"])))
def test_units_and_input_channels_are_cut(op: str, direction: str, inputs: str) -> None:
    graph = network(op, direction=direction, inputs=inputs)
    index = check(graph)
    recurrent = f"{op}_2"
    assert widths(index) == {"Conv_0": 6, recurrent: 5}
    n = DIRECTIONS[direction]
    members = [(m.tensor, m.axis, m.width) for m in index.group(recurrent).members]
    biases = [("B", 1, 10 * GATES[op])] if inputs else []
    rows = 5 * GATES[op]
    assert members == [("W", 1, rows), ("R", 1, rows), ("R", 2, 5), *biases, ("V", 0, 5 * n)]
    assert [(m.tensor, m.axis) for m in index.group("Conv_0").members] == [("K", 0), ("W", 2)]
    mask = random_mask(index, 0)
    node = cut(index, mask).graph.node[2]
    assert [a.i for a in node.attribute if a.name == "hidden_size"] == [mask[index.group(recurrent).span].sum()]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_macs_by_hand(direction: str) -> None:
    graph = network("LSTM", direction=direction)
    index = build_index(graph)
    n = DIRECTIONS[direction]
    for unit, channel in ((5, 6), (2, 6), (5, 4), (3, 1)):
        mask = np.ones(index.n_channels, dtype=bool)
        mask[index.group("LSTM_2").start : index.group("LSTM_2").start + 5 - unit] = False
        mask[index.group("Conv_0").start : index.group("Conv_0").start + 6 - channel] = False
        by_hand = 7 * channel * 9 + 7 * n * 4 * unit * (channel + unit) + 7 * n * unit * 2
        assert foreseen(graph, index, mask) == by_hand
        slim = from_proto(cut(index, mask))
        assert sum(full_macs(slim, node) for node in slim.nodes) == by_hand


LAST = "v = Squeeze(h, k0) o = MatMul(v, V)"


@pytest.mark.parametrize("op", GATES)
def test_the_last_state_alone_is_read(op: str) -> None:
    graph = network(op, outputs=", h", after=LAST, out="N, 2", k0=[0])
    index = check(graph)
    assert widths(index) == {"Conv_0": 6, f"{op}_2": 5}
    assert foreseen(graph, index) == 7 * 6 * 9 + 7 * GATES[op] * 5 * (6 + 5) + 5 * 2


def test_cells_and_peepholes_follow_the_units() -> None:
    graph = network(
        outputs=", , h",
        inputs="B, , , , P",
        after=LAST,
        out="N, 2",
        k0=[0],
        P=np.linspace(-1, 1, 15, dtype=np.float32)[None],
    )
    index = check(graph)
    assert ("P", 1, 15) in [(m.tensor, m.axis, m.width) for m in index.group("LSTM_2").members]


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("direction", ["reverse", "bidirectional"])
def test_constant_states_follow_the_units(op: str, direction: str) -> None:
    n = DIRECTIONS[direction]
    inputs = "B, , I, J" if op == "LSTM" else "B, , I"
    graph = network(op, direction=direction, inputs=inputs, batch="2", out="7, 2, 2", I=(n, 2, 5), J=(n, 2, 5))
    index = check(graph)
    assert widths(index) == {"Conv_0": 6, f"{op}_2": 5}
    assert {"I": 2} | ({"J": 2} if op == "LSTM" else {}) == {
        m.tensor: m.axis for m in index.group(f"{op}_2").members if m.tensor in "IJ"
    }


@pytest.mark.parametrize("op", GATES)
def test_computed_states_are_tied_to_the_units(op: str) -> None:
    """As a decoder that begins where an encoder ended."""
    before = "g = GlobalAveragePool(x) e = Squeeze(g, k2) a = MatMul(e, A) b = Tanh(a) i = Unsqueeze(b, k0)"
    index = check(network(op, inputs="B, , i", before=before, A=(3, 5), k0=[0], k2=[2]))
    assert widths(index) == {"MatMul_2": 5, "Conv_5": 6}
    assert {"A", "R"} <= {m.tensor for m in index.group("MatMul_2").members}


STATES: dict[str, tuple[str, dict[str, Any]]] = {
    "filled": (f"{SIZES} {ZEROS}", {}),
    "filled with ones": (f"{SIZES} i = ConstantOfShape <value = float[1] {{1.0}}> (z)", {}),
    "a number expanded": (f"{SIZES} i = Expand(zero, z)", {"zero": ZERO}),
    "a learned state expanded": (f"{SIZES} i = Expand(L, z)", {"L": (1, 1, 5)}),
    "a learned state expanded by ones": (
        "s = Shape(x) n = Gather <axis = 0> (s, k0) z = Concat <axis = 0> (kd, n, k1) i = Expand(L, z)",
        {"L": (1, 1, 5), "k1": [1]},
    ),
    "one for several layers": (
        "s = Shape(x) n = Gather <axis = 0> (s, k0) z = Concat <axis = 0> (k4, n, k5) "
        "a = ConstantOfShape(z) i = Slice(a, k0, kd, k0)",
        {"k4": [4]},
    ),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_states_of_an_open_batch_follow_the_units(state: str, direction: str) -> None:
    before, constants = STATES[state]
    n = DIRECTIONS[direction]
    sizes = {"k0": [0], "kd": [n], "k5": [5]}
    graph = network(direction=direction, inputs="B, , i, i", before=before, **sizes, **constants)
    index = check(graph)
    assert {name.split("_")[0]: n for name, n in widths(index).items()} == {"Conv": 6, "LSTM": 5}
    assert reasons(index) == {"MatMul_" + str(len(graph.nodes) - 1): "they are the model's output 'o'"}
    mask = random_mask(index, 0)
    assert len(cut(index, mask).graph.node) == len(graph.nodes)


def test_a_sequence_of_zeros_keeps_its_size() -> None:
    graph = build(
        """m (float[N, 5] x) => (float[7, N, 2] o) {
            s = Shape(x) n = Gather <axis = 0> (s, k0) z = Concat <axis = 0> (k7, n, k5) i = ConstantOfShape(z)
            e = Unsqueeze(x, k0) d = Tanh(e)
            y = RNN <hidden_size = 5> (i, W, R, B, , d) q = Squeeze(y, k1) o = MatMul(q, V)
        }""",
        **weights("RNN", 5, 5), k0=[0], k1=[1], k5=[5], k7=[7], V=(5, 2),
    )  # fmt: skip
    index = build_index(graph)
    assert index.groups == ()
    assert "i" not in index.axes


def test_a_state_of_a_refused_operator_counts_no_channels() -> None:
    graph = network(attributes=", layout = 1", inputs="B, , i, i", before=f"{SIZES} {ZEROS}", k0=[0], kd=[1], k5=[5])
    refusals = {r.op: r.n_channels for r in build_index(graph).refusals}
    assert refusals["LSTM"] == 6


def test_a_state_that_cannot_be_cut_keeps_the_units() -> None:
    index = check(
        build(
            """m (float[N, 3, 9] x, float[1, N, 5] i) => (float[7, N, 2] o) {
                c = Conv(x, K)
                t = Transpose <perm = [2, 0, 1]> (c)
                y = RNN <hidden_size = 5> (t, W, R, B, , i)
                q = Squeeze(y, k1)
                o = MatMul(q, V)
            }""",
            **weights("RNN", 6, 5),
            K=(6, 3, 3),
            k1=[1],
            V=(5, 2),
        )
    )
    assert widths(index) == {"Conv_0": 6}
    assert reasons(index)["RNN_2"] == "its state begins as 'i', whose channels cannot be cut"


@pytest.mark.parametrize("before", [0, 1])
def test_gru_resets_before_or_after_its_product(before: int) -> None:
    index = check(network("GRU", attributes=f", linear_before_reset = {before}"))
    assert widths(index) == {"Conv_0": 6, "GRU_2": 5}


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_stacked_layers(op: str, direction: str) -> None:
    n = DIRECTIONS[direction]
    second = {f"{name}2": shape for name, shape in weights(op, 5 * n, 4, n).items()}
    after = f"""
        q = Transpose <perm = [0, 2, 1, 3]> (y) f = Reshape(q, flat)
        z = {op} <hidden_size = 4, direction = "{direction}"> (f, W2, R2, B2)
        q2 = Transpose <perm = [0, 2, 1, 3]> (z) f2 = Reshape(q2, flat)
        o = MatMul(f2, V)
    """
    index = check(network(op, direction=direction, after=after, **second, V=(4 * n, 2)))
    assert widths(index) == {"Conv_0": 6, f"{op}_2": 5, f"{op}_5": 4}
    assert ("W2", 2, 5 * n) in [(m.tensor, m.axis, m.width) for m in index.group(f"{op}_2").members]


def test_directions_apart_keep_their_units_together() -> None:
    """Split by direction, as where both are added."""
    after = "a, b = Split <axis = 1> (y, k11) u = Add(a, b) f = Squeeze(u, k1) o = MatMul(f, V)"
    index = check(network(direction="bidirectional", after=after, k11=[1, 1], k1=[1], V=(5, 2)))
    assert widths(index) == {"Conv_0": 6, "LSTM_2": 5}


def test_units_that_are_an_output_stay_and_the_input_is_cut() -> None:
    index = check(network(outputs="o", after="", out="7, 1, N, 5"))
    assert widths(index) == {"Conv_0": 6}
    assert reasons(index) == {"LSTM_2": "they are the model's output 'o'"}
    assert index.refusals[0].n_channels == 5


def test_element_wise_activations_and_a_clip_keep_units_apart() -> None:
    attributes = ', activations = ["Sigmoid", "relu", "Softsign"], clip = 0.5, input_forget = 1'
    assert widths(check(network(attributes=attributes))) == {"Conv_0": 6, "LSTM_2": 5}


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        (
            ', activations = ["Sigmoid", "Softmax", "Tanh"]',
            "activation 'Softmax' is not known to work element by element",
        ),
        (", layout = 1", "its layout is the samples first"),
    ],
)
def test_what_is_not_followed_keeps_everything(attributes: str, reason: str) -> None:
    index = build_index(network(attributes=attributes))
    assert index.groups == ()
    assert reasons(index)["LSTM_2"] == reason


def test_lengths_of_the_sequences_that_carry_channels_keep_everything() -> None:
    graph = build(
        """m (float[3, 4] x, float[7, 5, 3] z) => (float[7, 5, 2] o) {
            a = MatMul(A, x)
            m = ReduceMax <axes = [1], keepdims = 0> (a)
            d = Cast <to = 6> (m)
            y = LSTM <hidden_size = 5> (z, W, R, B, d)
            q = Squeeze(y, k1)
            o = MatMul(q, V)
        }""",
        A=(5, 3),
        k1=[1],
        V=(5, 2),
        **weights("LSTM", 3, 5),
    )
    index = build_index(graph)
    assert index.groups == ()
    assert reasons(index)["LSTM_3"] == "the channels say how long the sequences are"


@pytest.mark.parametrize("position", ["W", "R", "B", "P"])
def test_computed_weights_keep_everything(position: str) -> None:
    shapes = weights("LSTM", 6, 5, peepholes=True)
    dims = ", ".join(map(str, shapes[position]))
    graph = build(
        f"""m (float[N, 3, 9] x, float[{dims}] {position}) => (float[7, N, 2] o) {{
            c = Conv(x, K)
            t = Transpose <perm = [2, 0, 1]> (c)
            y = LSTM <hidden_size = 5> (t, W, R, B, , , , P)
            q = Squeeze(y, k1)
            o = MatMul(q, V)
        }}""",
        **{name: shape for name, shape in shapes.items() if name != position},
        K=(6, 3, 3),
        k1=[1],
        V=(5, 2),
    )
    index = build_index(graph)
    assert index.groups == ()
    assert reasons(index)["LSTM_2"] == "the weight or bias is computed, not constant"
