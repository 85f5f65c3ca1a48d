from __future__ import annotations

import pytest
from onnx import numpy_helper

from bocr_onnx.graph import ModelGraph
from bocr_onnx.groups import build_index
from bocr_onnx.slimming import cut
from tests.oracle import Constant, build, check, random_mask, reasons, widths

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


@pytest.mark.parametrize(
    ("attributes", "left"), [("border = [1, 0, 0, 2]", (2, 3)), ("border = [1, 0, 0, 0], scale = [3, 2]", (3, 2))]
)
def test_a_cropped_border_passes_the_channels(attributes: str, left: tuple[int, int]) -> None:
    nodes = f"c = Conv(x, W) p = Crop <{attributes}> (c) y = Conv(p, V)"
    text = f"m (float[1, 3, 4, 4] x) => (float[1, 2, A, B] y) {{ {nodes} }}"
    graph = build(text, opset=8, ir=4, **CONV)
    assert graph.shapes["y"] == (1, 2, *left)
    assert widths(check(graph)) == {"Conv_0": 6}


def test_a_border_larger_than_the_image_leaves_the_shape_unknown() -> None:
    for border in ("4, 0, 0, 0", "1, 0, 0"):
        text = (
            f"m (float[1, 3, 4, 4] x) => (float[1, 2, A, B] y) {{ c = Conv(x, W) y = Crop <border = [{border}]> (c) }}"
        )
        assert "y" not in build(text, opset=8, ir=4, **CONV).shapes


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


UNPOOL = "MaxUnpool <kernel_shape = [2, 2], strides = [2, 2]>"


def unpooled(
    unpool: str, *, size: str = "4, 4", batch: str = "N", between: str = "", **constants: Constant
) -> ModelGraph:
    """SegNet: Conv -> MaxPool -> Conv -> MaxUnpool -> Conv."""
    return build(
        f"""m (float[{batch}, 3, {size}] x) => (float[{batch}, 2, A, B] y) {{
            c = Conv(x, W)
            p, i = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c)
            d = Conv(p, U)
            {between}
            u = {unpool}
            y = Conv(u, V)
        }}""",
        U=(6, 6, 1, 1),
        **CONV,
        **constants,
    )


@pytest.mark.parametrize(("between", "indices"), [("", "i"), ("j = Identity(i) k = Identity(j)", "k")])
def test_channels_are_unpooled_to_where_their_maxima_were(between: str, indices: str) -> None:
    index = check(unpooled(f"{UNPOOL} (d, {indices})", between=between))
    assert widths(index) == {"Conv_0": 6}
    assert [(m.tensor, m.axis) for m in index.groups[0].members] == [("W", 0), ("U", 1), ("U", 0), ("V", 1)]


def test_the_constant_size_of_what_is_unpooled_follows_the_channels() -> None:
    graph = unpooled(f"{UNPOOL} (d, i, k)", size="5, 5", batch="2", k=[2, 6, 5, 5])
    index = check(graph)
    assert widths(index) == {"Conv_0": 6}
    mask = random_mask(index, 0)
    sizes = next(t for t in cut(index, mask).graph.initializer if t.name == "k")
    assert numpy_helper.to_array(sizes).tolist() == [2, mask.sum(), 5, 5]


def test_a_size_read_off_another_tensor_of_as_many_channels_freezes_them() -> None:
    graph = unpooled(
        f"{UNPOOL} (d, i, s)", size="5, 5", between="e = Conv(x, E) s = Shape(e) t = Relu(e)", E=(6, 3, 1, 1)
    )
    index = build_index(graph)
    assert index.groups == ()
    assert reasons(index)["MaxUnpool_6"].startswith("the target shape is computed in a way that does not follow")


def test_a_height_that_counts_channels_keeps_them() -> None:
    between = "s = Shape(c) k = Gather <axis = 0> (s, at)"
    index = build_index(unpooled(f"{UNPOOL} (d, i, k)", size="6, 6", between=between, at=[0, 1, 1, 1]))
    assert index.groups == ()
    assert reasons(index)["MaxUnpool_5"] == "the number of channels is used in arithmetic"


@pytest.mark.parametrize("size", ["5, 5", "H, W"])
def test_the_computed_size_of_what_is_unpooled_follows_the_channels(size: str) -> None:
    graph = unpooled(f"{UNPOOL} (d, i, s)", size=size, between="s = Shape(c)")
    assert widths(check(graph)) == {"Conv_0": 6}


OTHER_SIZE = "it unpools to a size that is not, or not always, the one before the MaxPool"


@pytest.mark.parametrize("size", ["5, 5", "H, W"])
def test_indices_of_another_volume_freeze_the_channels(size: str) -> None:
    """They number the entries of the larger one: the channels mix."""
    index = build_index(unpooled(f"{UNPOOL} (d, i)", size=size))
    assert index.groups == ()
    assert reasons(index)["MaxUnpool_3"] == OTHER_SIZE


def test_indices_that_are_computed_with_freeze_the_channels() -> None:
    index = build_index(unpooled(f"{UNPOOL} (d, k)", between="k = Add(i, zero)", zero=[0]))
    assert index.groups == ()
    assert reasons(index)["MaxPool_1"] == "the indices of MaxPool count channels"
    assert reasons(index)["MaxUnpool_4"] == "its indices are not those of a MaxPool"


def test_channels_that_are_unpooled_by_an_input_are_frozen() -> None:
    graph = build(
        f"""m (float[N, 3, 4, 4] x, int64[N, 6, 4, 4] i) => (float[N, 2, 8, 8] y) {{
            c = Conv(x, W)
            u = {UNPOOL} (c, i)
            y = Conv(u, V)
        }}""",
        **CONV,
    )
    index = build_index(graph)
    assert index.groups == ()
    assert reasons(index)["MaxUnpool_1"] == "its indices are not those of a MaxPool"


def test_maxima_that_an_input_is_unpooled_to_are_frozen() -> None:
    graph = build(
        f"""m (float[N, 3, 4, 4] x, float[N, 6, 2, 2] d) => (float[N, 2, 4, 4] y) {{
            c = Conv(x, W)
            p, i = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c)
            u = {UNPOOL} (d, i)
            y = Conv(u, V)
        }}""",
        **CONV,
    )
    index = build_index(graph)
    assert index.groups == ()
    assert reasons(index)["MaxUnpool_2"] == "it meets 'd', whose channels cannot be cut"
