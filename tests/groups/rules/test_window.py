from __future__ import annotations

import numpy as np
import pytest

from bocr_onnx.groups import build_index
from bocr_onnx.slimming import compare, cut
from bocr_onnx.slimming.proof import masked_original
from tests.oracle import build, check, drawn, random_mask, reasons, run, widths

MAX = np.iinfo(np.int64).max
STAGES = {"W": (4, 3, 3, 3), "B": (8, 4, 3, 3), "V": (2, 8, 1, 1)}


def shortcut(slices: str, pad: str) -> str:
    """Returns a CIFAR block with the option-A shortcut: every second position, channels padded with zeros."""
    return f"""m (float[N, 3, 8, 8] x) => (float[N, 2, 4, 4] y) {{
        c = Conv <pads = [1, 1, 1, 1]> (x, W)
        r = Relu(c)
        b = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (r, B)
        {slices}
        {pad}
        a = Add(b, p)
        t = Relu(a)
        y = Conv(t, V)
    }}"""


INPUTS = "s = Slice(r, starts, ends, axes, steps)"
CASES = {
    "opset 13": (13, shortcut(INPUTS, "p = Pad(s, pads)")),
    "opset 13, zero given": (13, shortcut(INPUTS, "p = Pad(s, pads, zero)")),
    "opset 18, padded axis": (18, shortcut(INPUTS, "p = Pad(s, pads1, zero, channel)")),
    "opset 10, pads by attribute": (10, shortcut(INPUTS, "p = Pad <pads = [0, 2, 0, 0, 0, 2, 0, 0]> (s)")),
    "opset 9, a strided pool instead": (
        9,
        shortcut(
            "s = MaxPool <kernel_shape = [1, 1], strides = [2, 2]> (r)",
            "p = Pad <pads = [0, 2, 0, 0, 0, 2, 0, 0]> (s)",
        ),
    ),
}
LISTS = {
    "starts": [0, 0], "ends": [MAX, MAX], "axes": [2, -1], "steps": [2, 2],
    "pads": [0, 2, 0, 0, 0, 2, 0, 0], "pads1": [2, 2], "channel": [1], "zero": np.array(0, np.float32),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_cifar_shortcut_splits_the_stage_into_shared_and_new_channels(case: str) -> None:
    opset, text = CASES[case]
    used = {k: v for k, v in LISTS.items() if f"{k}," in text or f"{k})" in text}
    graph = build(text, opset=opset, **STAGES, **used)
    index = check(graph, seeds=range(4))
    assert widths(index) == {"Conv_0": 4, "Conv_2": 4}
    members = [{(m.tensor, m.axis, m.width) for m in g.members} for g in index.groups]
    assert members == [
        {("W", 0, 4), ("B", 0, 4), ("B", 1, 4), ("V", 1, 4)},
        {("B", 0, 4), ("V", 1, 4)},
    ]


def test_pad_amounts_count_the_kept_new_channels() -> None:
    opset, text = CASES["opset 13"]
    used = {k: LISTS[k] for k in ("starts", "ends", "axes", "steps", "pads")}
    graph = build(text, opset=opset, **STAGES, **used)
    index = build_index(graph)
    mask = np.ones(8, dtype=bool)
    mask[4:] = [True, False, True, True]
    stored = {t.name: t for t in cut(index, mask).graph.initializer}
    assert np.frombuffer(stored["pads"].raw_data, np.int64).tolist() == [0, 1, 0, 0, 0, 2, 0, 0]


def test_slice_over_space_by_attribute() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 2, 3] y) {
            c = Conv(x, W)
            s = Slice <axes = [2, 3], starts = [1, 0], ends = [3, -1]> (c)
            y = Conv(s, V)
        }""",
        opset=9,
        W=(6, 3, 1, 1),
        V=(2, 6, 1, 1),
    )
    assert widths(check(graph)) == {"Conv_0": 6}


WINDOWS = [(0, 4), (2, 6), (1, 3), (4, MAX), (-3, MAX), (0, -2), (-5, -1), (3, 8)]


def halves(slice_: str) -> str:
    return f"""m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {{
        c = Conv(x, W)
        r = Sigmoid(c)
        {slice_}
        y1 = Conv(s, V)
        y2 = Conv(r, U)
        y = Add(y1, y2)
    }}"""


@pytest.mark.parametrize(("start", "end"), WINDOWS)
@pytest.mark.parametrize("opset", [9, 13])
def test_a_window_of_the_channels_counts_what_is_kept_before_and_in_it(start: int, end: int, opset: int) -> None:
    width = len(range(8)[start:end])
    lists = {"starts": [start], "ends": [end], "axes": [1]}
    by_input = "s = Slice(r, starts, ends, axes)"
    by_attribute = f"s = Slice <axes = [1], starts = [{start}], ends = [{end}]> (r)"
    graph = build(
        halves(by_input if opset == 13 else by_attribute),
        opset=opset,
        W=(8, 3, 1, 1),
        V=(2, width, 1, 1),
        U=(2, 8, 1, 1),
        **(lists if opset == 13 else {}),
    )
    index = check(graph, seeds=range(6))
    inside = set(range(8)[start:end])
    assert sorted(g.n_channels for g in index.groups) == sorted(n for n in (len(inside), 8 - len(inside)) if n > 1)


def test_the_two_halves_of_a_split_by_slices_are_groups_of_their_own() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            c = Conv(x, W)
            a = Slice(c, k0, k4, k1)
            b = Slice(c, k4, k8, k1)
            s = Sigmoid(b)
            g = Mul(a, s)
            y = Conv(g, V)
        }""",
        k0=[0],
        k1=[1],
        k4=[4],
        k8=[8],
        W=(8, 3, 1, 1),
        V=(2, 4, 1, 1),
    )
    index = check(graph)
    assert widths(index) == {"Conv_0": 4}
    assert [(m.tensor, m.axis, m.width) for m in index.groups[0].members] == [("W", 0, 8), ("V", 1, 4)]


def test_every_second_channel_is_refused() -> None:
    graph = build(
        halves("s = Slice(r, starts, ends, axes, steps)"),
        starts=[0],
        ends=[MAX],
        axes=[1],
        steps=[2],
        W=(8, 3, 1, 1),
        V=(2, 4, 1, 1),
        U=(2, 8, 1, 1),
    )
    index = build_index(graph)
    assert index.groups == ()
    assert reasons(index)["Slice_2"] == "Slice takes channels with a step, or none"


@pytest.mark.parametrize(("axis", "refused"), [(3, False), (1, True)])
def test_a_computed_window_passes_channels_on_other_axes(axis: int, refused: bool) -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x, float[1] z) => (float[N, 2, 4, M] y) {
            c = Conv(x, W)
            starts = Cast <to = 7> (z)
            s = Slice(c, starts, ends, axes)
            y = Conv(s, V)
        }""",
        ends=[MAX],
        axes=[axis],
        W=(6, 3, 1, 1),
        V=(2, 6, 1, 1),
    )
    index = build_index(graph) if refused else check(graph)
    assert widths(index) == ({} if refused else {"Conv_0": 6})
    assert (reasons(index).get("Slice_2") == "the window is computed") is refused


@pytest.mark.parametrize(
    ("mode", "pads", "refused"),
    [
        ("constant", [0, 0, 1, 1, 0, 0, 1, 1], False),
        ("reflect", [0, 0, 1, 1, 0, 0, 1, 1], False),
        ("edge", [0, 1, 0, 0, 0, 1, 0, 0], True),
        ("constant", [0, -1, 0, 0, 0, 3, 0, 0], True),
    ],
)
def test_pad_over_space_passes_and_pad_that_moves_channels_is_refused(
    mode: str, pads: list[int], refused: bool
) -> None:
    width = 6 + pads[1] + pads[5]
    graph = build(
        f"""m (float[N, 3, 4, 4] x) => (float[N, 2, A, B] y) {{
            c = Conv(x, W)
            p = Pad <mode = "{mode}"> (c, pads)
            d = Conv(p, U)
            y = Conv(d, V)
        }}""",
        pads=pads,
        W=(6, 3, 1, 1),
        U=(5, width, 1, 1),
        V=(2, 5, 1, 1),
    )
    index = check(graph)
    assert widths(index) == ({"Conv_2": 5} if refused else {"Conv_0": 6, "Conv_2": 5})
    assert (
        reasons(index).get("Pad_1") == "Pad repeats or removes channels, or the pad amounts are computed"
    ) is refused


def test_pad_with_a_value_that_is_not_zero_is_exact_too() -> None:
    opset, text = CASES["opset 13, zero given"]
    used = {k: LISTS[k] for k in ("starts", "ends", "axes", "steps", "pads")}
    graph = build(text, opset=opset, zero=np.array(0.5, np.float32), **STAGES, **used)
    assert widths(check(graph)) == {"Conv_0": 4, "Conv_2": 4}


def test_computed_pad_amounts_are_refused() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x, int64[8] pads) => (float[N, 2, A, B] y) {
            c = Conv(x, W)
            p = Pad(c, pads)
            y = Conv(p, V)
        }""",
        W=(6, 3, 1, 1),
        V=(2, 6, 1, 1),
    )
    index = build_index(graph)
    assert index.groups == ()
    assert reasons(index)["Pad_1"] == "the pad amounts depend on the input"


@pytest.mark.parametrize(
    ("indices", "expected"),
    [
        ([5, 3, 1, 0, 2, 4], [6]),
        ([-1, -3, -5, 0, 2, 4], [6]),
        ([0, 0, 2, 2, 5, -1], [3, 3]),
        ([4, 1], [2, 4]),
    ],
    ids=["permutation", "negative", "repeated", "some"],
)
def test_gather_takes_the_channels_it_asks_for(indices: list[int], expected: list[int]) -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            c = Conv(x, W)
            g = Gather <axis = 1> (c, indices)
            p = Conv(g, V)
            q = Conv(c, U)
            y = Add(p, q)
        }""",
        indices=indices,
        W=(6, 3, 1, 1),
        V=(2, len(indices), 1, 1),
        U=(2, 6, 1, 1),
    )
    index = check(graph, seeds=range(5))
    assert sorted(g.n_channels for g in index.groups) == expected


def test_gather_by_a_scalar_keeps_its_channel() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            c = Conv(x, W)
            g = Gather <axis = 1> (c, two)
            u = Unsqueeze(g, one)
            q = Conv(c, V)
            y = Add(u, q)
        }""",
        two=np.array(2, np.int64),
        one=[1],
        W=(6, 3, 1, 1),
        V=(2, 6, 1, 1),
    )
    index = check(graph, seeds=range(5))
    assert widths(index) == {"Conv_0": 5}
    assert reasons(index)["Gather_1"] == "Gather takes a single channel"


def test_gather_by_a_table_is_refused() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 3, 4, 4] y) {
            c = Conv(x, W)
            y = Gather <axis = 1> (c, table)
        }""",
        table=np.arange(6).reshape(2, 3),
        W=(6, 3, 1, 1),
    )
    index = build_index(graph)
    assert index.groups == ()
    assert reasons(index)["Gather_1"] == "Gather deals channels out over axes"


def test_gather_over_space_passes_the_channels() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4] y) {
            c = Conv(x, W)
            g = Gather <axis = 2> (c, one)
            y = Conv(g, V)
        }""",
        one=np.array(1, np.int64),
        W=(6, 3, 1, 1),
        V=(2, 6, 1),
    )
    assert widths(check(graph)) == {"Conv_0": 6}


def test_a_bound_that_two_sizes_of_the_input_happen_to_share_is_no_constant() -> None:
    """The rest of the height by 32 is nought at 224 and at 160, and is not at 100."""
    graph = build(
        """m (float[N, 3, H, W] x) => (float[N, 2, A, B] y) {
            c = Conv(x, W)
            s = Shape(x)
            h = Gather(s, k2)
            rest = Mod(h, k32)
            starts = Concat <axis = 0> (two, rest)
            z = Slice(c, starts, ends, axes)
            y = Conv(z, V)
        }""",
        k2=[2],
        k32=[32],
        two=[2],
        ends=[6, MAX],
        axes=[1, 2],
        W=(6, 3, 1, 1),
        V=(2, 4, 1, 1),
    )
    index = build_index(graph)
    mask = random_mask(index, 0)
    slim = cut(index, mask)
    feeds = {"x": drawn((1, 3, 100, 32), 0)}
    assert compare(run(masked_original(index, mask, {}), feeds), run(slim, feeds)).passed
