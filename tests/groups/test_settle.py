from __future__ import annotations

import numpy as np
import pytest

from bocr_onnx.groups.labels import Labeller
from bocr_onnx.groups.records import Block, Equality, on
from bocr_onnx.groups.settle import FIXED, settle
from tests.oracle import build


def labeller() -> Labeller:
    return Labeller(build("m (float[N, 6, 4] x) => (float[N, 6, 4] y) { r = Relu(x) y = Relu(r) }"))


def test_labels_of_one_axis_stay_apart() -> None:
    at = labeller()
    at.emit("r", [on(1, at.fresh(3))])
    settled = settle(at)
    assert settled.classed.tolist() == [0, 1, 2]
    assert settled.axes["r"][1].tolist() == [0, 1, 2]


def test_joins_name_a_class_and_a_freeze_takes_all_of_it() -> None:
    at = labeller()
    a, b = at.fresh(3), at.fresh(3)
    at.join(a, b)
    at.freeze(at.graph.nodes[0], b[:1], "it is seen")
    settled = settle(at)
    assert settled.merged.tolist() == [0, 1, 2, 0, 1, 2]
    assert settled.classed.tolist() == [FIXED, 1, 2, FIXED, 1, 2]


@pytest.mark.parametrize(("shape", "free"), [((2, 3), 1), ((3, 2), 0), ((2, 2), 0)])
def test_all_but_the_longest_axis_are_tied_where_nothing_decides(shape: tuple[int, int], free: int) -> None:
    at = labeller()
    labels = at.fresh(shape[0] * shape[1]).reshape(shape)
    at.emit("r", [Block((0, 1), labels)])
    settled = settle(at)
    (axis,) = settled.axes["r"]
    assert axis == free
    assert len(set(settled.classed.tolist())) == shape[free]
    assert (
        settled.classed[labels] == settled.classed[settled.axes["r"][axis]].reshape((-1, 1) if axis == 0 else (1, -1))
    ).all()


def test_an_axis_that_is_tied_already_leaves_the_other_free() -> None:
    at = labeller()
    labels = at.fresh(6).reshape(2, 3)
    at.join(np.repeat(labels[:, :1], 2, axis=1), labels[:, 1:])
    at.emit("r", [Block((0, 1), labels)])
    settled = settle(at)
    assert settled.axes["r"] == {0: pytest.approx([0, 3])}
    assert settled.classed.tolist() == [0, 0, 0, 3, 3, 3]


def test_a_frozen_block_varies_along_none_and_stays_whole() -> None:
    at = labeller()
    labels = at.fresh(6).reshape(2, 3)
    at.emit("r", [Block((0, 1), labels)])
    at.freeze(at.graph.nodes[0], labels, "it is seen")
    assert set(settle(at).classed.tolist()) == {FIXED}


def test_one_frozen_label_of_a_block_freezes_its_entry_of_the_free_axis() -> None:
    at = labeller()
    labels = at.fresh(6).reshape(2, 3)
    at.emit("r", [Block((0, 1), labels)])
    at.freeze(at.graph.nodes[0], labels[0, :1], "it is seen")
    assert settle(at).classed[labels].tolist() == [[FIXED, 1, 2], [FIXED, 1, 2]]


def promised(at: Labeller, width: Block, rows: Block | None, times: float = 1.0) -> None:
    at.equalities.append(Equality(0, width.rows(1), times, None if rows is None else rows.rows(1)))


def test_a_promise_that_holds_changes_nothing() -> None:
    at = labeller()
    a = at.fresh(3)
    at.emit("r", [on(1, a)])
    promised(at, on(1, a), on(1, a[::-1]))
    settled = settle(at)
    assert settled.classed.tolist() == [0, 1, 2]
    assert not at.freezes


def test_a_promise_counts_how_often_a_channel_lies_on_the_axis() -> None:
    at = labeller()
    a = at.fresh(3)
    promised(at, on(1, a), on(1, np.repeat(a, 4)), times=4.0)
    assert settle(at).classed.tolist() == [0, 1, 2]
    promised(at, on(1, a), on(1, np.repeat(a, 4)), times=2.0)
    assert set(settle(at).classed.tolist()) == {FIXED}


def test_a_promise_between_two_widths_freezes_both() -> None:
    at = labeller()
    a, b = at.fresh(3), at.fresh(3)
    promised(at, on(1, a), on(1, b))
    assert set(settle(at).classed.tolist()) == {FIXED}
    assert [f.labels.tolist() for f in at.freezes] == [[0, 1, 2], [3, 4, 5]]


def test_an_integer_that_must_not_change_freezes_what_it_counts() -> None:
    at = labeller()
    a, b = at.fresh(3), at.fresh(2)
    promised(at, on(1, a), None)
    assert settle(at).classed.tolist() == [FIXED] * 3 + [3, 4]
    assert len(b) == 2


def test_a_broken_promise_may_break_another() -> None:
    """b equals a, and c is said to equal b: where c cannot follow, a goes with b."""
    at = labeller()
    a, b, c = at.fresh(2), at.fresh(2), at.fresh(2)
    at.join(a, b)
    promised(at, on(1, a), on(1, b))
    promised(at, on(1, b), on(1, c))
    assert set(settle(at).classed.tolist()) == {FIXED}


def test_a_promise_is_judged_once_the_ties_of_a_block_are_made() -> None:
    """Four free channels are not two of them twice; tied in pairs they are."""
    at = labeller()
    a = at.fresh(4)
    at.emit("r", [Block((0, 1), a.reshape(2, 2))])
    promised(at, on(1, a), on(1, a[[0, 0, 2, 2]]))
    assert settle(at).classed.tolist() == [0, 0, 2, 2]


def test_nothing_to_settle() -> None:
    settled = settle(labeller())
    assert settled.classed.shape == (0,)
    assert settled.axes == {}
