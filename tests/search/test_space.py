"""Which channel counts a group may keep."""

from __future__ import annotations

import pytest

from bocr_onnx.errors import UsageError
from bocr_onnx.groups import GroupIndex, build_index
from bocr_onnx.search import build_space
from tests.oracle import build


def convolutions(width: int) -> GroupIndex:
    return build_index(
        build(
            "m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) { c = Conv(x, W) r = Relu(c) y = Conv(r, V) }",
            W=(width, 3, 1, 1),
            V=(2, width, 1, 1),
        )
    )


def heads(n: int) -> GroupIndex:
    """Every head is 16 channels of queries, keys, values and what reads them."""
    width = 16 * n
    return build_index(
        build(
            """m (float[N, 5, 8] x) => (float[N, 5, 8] y) {
                q = MatMul(x, Q) k = MatMul(x, K) v = MatMul(x, V)
                a = Reshape(q, t) b = Reshape(k, t) c = Reshape(v, t)
                d = Transpose <perm = [0, 2, 1, 3]> (a) e = Transpose <perm = [0, 2, 3, 1]> (b)
                f = Transpose <perm = [0, 2, 1, 3]> (c)
                s = MatMul(d, e) p = Softmax(s) o = MatMul(p, f)
                g = Transpose <perm = [0, 2, 1, 3]> (o) h = Reshape(g, u) y = MatMul(h, O)
            }""",
            Q=(8, width),
            K=(8, width),
            V=(8, width),
            O=(width, 8),
            t=[0, 5, n, 16],
            u=[0, 5, width],
        )
    )


@pytest.mark.parametrize(
    ("width", "grid", "least", "choices"),
    [
        (32, 8, 1, [8, 16, 24, 32]),
        (32, 8, 12, [16, 24, 32]),
        (32, 8, 64, [32]),
        (12, 8, 1, [6, 12]),
        (5, 1, 1, [1, 2, 3, 4, 5]),
        (5, 1, 3, [3, 4, 5]),
    ],
)
def test_counts_are_on_the_grid_and_not_below_the_minimum(
    width: int, grid: int, least: int, choices: list[int]
) -> None:
    space = build_space(convolutions(width), grid=grid, min_width=least)
    assert space.choices[0].tolist() == choices


@pytest.mark.parametrize(("grid", "choices"), [(1, [1, 2, 3, 4]), (8, [1, 2, 3, 4]), (16, [1, 2, 3, 4]), (32, [2, 4])])
def test_a_head_counts_as_the_channels_it_stands_for(grid: int, choices: list[int]) -> None:
    assert build_space(heads(4), grid=grid).choices[0].tolist() == choices


def test_a_frozen_group_keeps_all() -> None:
    index = convolutions(8)
    assert build_space(index, frozen=(index.groups[0].name,)).choices[0].tolist() == [8]


@pytest.mark.parametrize(("settings", "named"), [({"grid": 0}, "`round_to`"), ({"min_width": 0}, "`min_width`")])
def test_bounds_below_one_are_refused(settings: dict[str, int], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        build_space(convolutions(8), **settings)
