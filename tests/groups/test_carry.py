from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bocr_onnx.groups import carry as module
from bocr_onnx.groups.carry import Shape, carry
from bocr_onnx.groups.records import Block, RuleError

FACTORS = st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=5).filter(lambda f: math.prod(f) <= 600)


@st.composite
def reshapes(draw: st.DrawFn) -> tuple[Shape, Shape]:
    """Draws two shapes of as many elements: the same factors, at times in another order, grouped in two ways."""
    factors = draw(FACTORS)
    other = draw(st.permutations(factors)) if draw(st.booleans()) else factors
    return _grouped(draw, factors), _grouped(draw, list(other))


def _grouped(draw: st.DrawFn, factors: list[int]) -> Shape:
    sizes = [1]
    for factor in factors:
        if draw(st.booleans()):
            sizes.append(factor)
        else:
            sizes[-1] *= factor
    return tuple(sizes)


def spread(block: Block, shape: Shape) -> np.ndarray:
    """Returns the labels of a block as an array over the whole tensor."""
    own = [size if axis in block.axes else 1 for axis, size in enumerate(shape)]
    return np.broadcast_to(block.labels.reshape(own), shape)


@given(reshapes(), st.data())
def test_carrying_labels_is_reshaping_an_array_of_integers(shapes: tuple[Shape, Shape], data: st.DataObject) -> None:
    before, after = shapes
    moved = carry(before, after)
    free = [axis for axis in range(len(before)) if axis not in moved.mixed]
    axes = tuple(sorted(data.draw(st.sets(st.sampled_from(free), min_size=1)))) if free else ()
    if not axes:
        return
    sizes = [before[axis] for axis in axes]
    block = Block(axes, np.arange(math.prod(sizes)).reshape(sizes))
    found = moved(block)
    assert found.labels.shape == tuple(after[axis] for axis in found.axes)
    assert np.array_equal(spread(found, after), spread(block, before).reshape(after))


@given(reshapes())
def test_the_factors_make_both_shapes(shapes: tuple[Shape, Shape]) -> None:
    before, after = shapes
    moved = carry(before, after)
    for shape, made in ((before, moved.before), (after, moved.after)):
        for axis, factors in enumerate(made):
            assert math.prod(moved.factors[f] for f in factors) == shape[axis] or not factors
    assert not any(moved.before[axis] for axis in moved.mixed)


@given(reshapes())
def test_there_is_a_way_back(shapes: tuple[Shape, Shape]) -> None:
    there, back = carry(*shapes), carry(*shapes[::-1])
    assert (there.factors, there.before, there.after) == (back.factors, back.after, back.before)
    assert bool(there.mixed) is bool(back.mixed)


@pytest.mark.parametrize(
    ("before", "after", "axes", "labels"),
    [
        ((1, 4), (2, 2), (0, 1), [[0, 1], [2, 3]]),
        ((1, 4, 2), (1, 8), (1,), [0, 0, 1, 1, 2, 2, 3, 3]),
        ((2, 4), (8,), (0,), [0, 1, 2, 3, 0, 1, 2, 3]),
        ((1, 4, 1, 1), (4,), (0,), [0, 1, 2, 3]),
        ((4, 6), (2, 2, 6), None, None),
    ],
)
def test_where_labels_lie_afterwards(
    before: Shape, after: Shape, axes: tuple[int, ...] | None, labels: list[object] | None
) -> None:
    axis = before.index(4)
    found = carry(before, after)(Block((axis,), np.arange(4)))
    assert found.axes == (axes or (0, 1))
    assert found.labels.tolist() == (labels or [[0, 1], [2, 3]])


def test_what_has_no_common_factors_is_mixed_and_the_rest_is_not() -> None:
    moved = carry((5, 6, 4, 7), (5, 4, 6, 7))
    assert moved.mixed == {1, 2}
    assert moved(Block((0, 3), np.arange(35).reshape(5, 7))).axes == (0, 3)


def test_a_single_label_lies_on_no_axis() -> None:
    assert carry((1, 6), (6,))(Block((0,), np.zeros(1, np.int64))).axes == ()


@pytest.mark.parametrize(("before", "after"), [((2, 3), (7,)), ((0, 3), (0,)), ((2,), (2, 0))])
def test_what_is_no_reshape_is_refused(before: Shape, after: Shape) -> None:
    with pytest.raises(RuleError, match="is not one"):
        carry(before, after)


def test_labels_are_not_repeated_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REPEATED", 11)
    with pytest.raises(RuleError, match="too large an axis"):
        carry((3, 4), (12,))(Block((0,), np.arange(3)))


@pytest.mark.parametrize(
    ("before", "after", "most", "factors"),
    [
        ((6, 50), (2, 150), 300, ()),
        ((6, 50), (2, 150), 299, (1,)),
        ((6, 50), (2, 3, 50), 5, (0,)),
        ((12, 50), (2, 3, 100), 5, (2, 0)),
        ((12, 50), (2, 3, 100), 2, ()),
        ((6, 50), (300,), 299, ()),
    ],
)
def test_factors_on_the_axes_that_repeat_most_are_crowded(
    before: Shape, after: Shape, most: int, factors: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_REPEATED", most)
    assert carry(before, after).crowded(Block((0,), np.arange(before[0]))) == factors


def test_labels_that_are_equal_along_a_factor_do_not_lie_on_it() -> None:
    found = carry((6, 5), (2, 15))(Block((0,), np.array([4, 4, 4, 7, 7, 7])))
    assert (found.axes, found.labels.tolist()) == ((0,), [4, 7])
    alone = carry((6, 5), (2, 15))(Block((0,), np.zeros(6, np.int64)))
    assert (alone.axes, alone.labels.tolist()) == ((0,), [0, 0])
