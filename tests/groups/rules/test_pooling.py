from __future__ import annotations

import pytest

from bocr_onnx.groups import build_index
from tests.oracle import build, check, reasons, widths

CONV = {"W": (6, 3, 1, 1), "V": (2, 6, 1, 1)}


@pytest.mark.parametrize(
    "pool",
    [
        "MaxPool <kernel_shape = [2, 2], strides = [2, 2]>",
        "AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]>",
        "LpPool <kernel_shape = [2, 2]>",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "GlobalLpPool",
    ],
)
def test_pooling_passes_the_channels(pool: str) -> None:
    graph = build(
        f"m (float[N, 3, 4, 4] x) => (float[N, 2, A, B] y) {{ c = Conv(x, W) p = {pool} (c) y = Conv(p, V) }}", **CONV
    )
    assert widths(check(graph)) == {"Conv_0": 6}


POOL = "p, i = MaxPool <kernel_shape = [2, 2]> (c)"


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        (f"m (float[N, 3, 4, 4] x) => (float[N, 2, 3, 3] y) {{ c = Conv(x, W) {POOL} y = Conv(p, V) }}", False),
        (
            f"m (float[N, 3, 4, 4] x) => (float[N, 2, 3, 3] y, int64[N, 6, 3, 3] i) {{"
            f" c = Conv(x, W) {POOL} y = Conv(p, V) }}",
            True,
        ),
        (
            f"m (float[N, 3, 4, 4] x) => (float[N, 2, 3, 3] y, float[N, 6, 3, 3] z) {{"
            f" c = Conv(x, W) {POOL} y = Conv(p, V) z = Cast <to = 1> (i) }}",
            True,
        ),
    ],
    ids=["unread", "an output", "read"],
)
def test_indices_of_the_maxima_count_channels(text: str, refused: bool) -> None:
    index = build_index(build(text, **CONV))
    assert (reasons(index).get("MaxPool_1") == "the indices of MaxPool count channels") is refused
    assert widths(index) == ({} if refused else {"Conv_0": 6})


def test_channels_on_a_pooled_axis_are_frozen() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 5, 3] y) {
            c = Conv(x, W)
            t = Transpose <perm = [0, 2, 1, 3]> (c)
            p = MaxPool <kernel_shape = [2, 2]> (t)
            d = Conv(p, U)
            y = Conv(d, V)
        }""",
        W=(6, 3, 1, 1),
        U=(5, 4, 1, 1),
        V=(2, 5, 1, 1),
    )
    index = check(graph)
    assert widths(index) == {"Conv_3": 5}
    assert reasons(index)["MaxPool_2"] == "the channels lie on an axis that is pooled"


def test_a_grid_samples_every_channel_alike() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x, float[N, 5, 5, 2] grid) => (float[N, 2, 5, 5] y) {
            c = Conv(x, W)
            s = GridSample(c, grid)
            y = Conv(s, V)
        }""",
        **CONV,
    )
    assert widths(check(graph)) == {"Conv_0": 6}


def test_channels_that_say_where_to_sample_are_frozen() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
            c = Conv(x, W)
            o = Conv(c, O)
            grid = Transpose <perm = [0, 2, 3, 1]> (o)
            s = GridSample(c, grid)
            y = Conv(s, V)
        }""",
        O=(2, 6, 1, 1),
        **CONV,
    )
    index = build_index(graph)
    assert (index.slices[(1, 1)][0] < 0).all()
    assert reasons(index)["GridSample_3"] == "the channels say where to sample"
