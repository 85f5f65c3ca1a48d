from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bocr_onnx.groups.labels import Labeller, classes
from bocr_onnx.groups.records import Slot, on
from tests.oracle import build

PAIRS = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        st.just(n),
        st.lists(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), min_size=1, max_size=4), max_size=6),
    )
)


@given(PAIRS)
def test_classes_are_the_connected_components_named_by_their_smallest_label(
    drawn: tuple[int, list[list[tuple[int, int]]]],
) -> None:
    n, pairs = drawn
    joins = [(np.array([a for a, _ in p]), np.array([b for _, b in p])) for p in pairs]
    reach = np.eye(n, dtype=bool)
    for a, b in (pair for p in pairs for pair in p):
        reach[a, b] = reach[b, a] = True
    for _ in range(n):
        reach = reach @ reach
    assert classes(n, joins).tolist() == [int(np.flatnonzero(row)[0]) for row in reach]


def test_no_labels_have_no_classes() -> None:
    assert classes(0, []).shape == (0,)


def labeller() -> Labeller:
    return Labeller(build("m (float[N, 2, 4, 4] x) => (float[N, 2, 4, 4] y) { r = Relu(x) y = Relu(r) }"))


def test_fresh_labels_are_new() -> None:
    at = labeller()
    assert [*at.fresh(2), *at.fresh(3)] == [0, 1, 2, 3, 4]
    assert at.n_labels == 5


def test_two_cuts_of_one_axis_join_their_labels() -> None:
    at = labeller()
    a, b = at.fresh(2), at.fresh(2)
    at.cut((0, 1), 0, a)
    at.cut((0, 1), 0, a)
    assert at.joins == []
    at.cut((0, 1), 0, b)
    assert classes(at.n_labels, at.joins).tolist() == [0, 1, 0, 1]


def test_two_counts_of_one_integer_join_their_labels() -> None:
    at = labeller()
    a, b = at.fresh(2), at.fresh(2)
    node = at.graph.nodes[0]
    at.count(node, 1, 0, a)
    at.count(node, 1, 1, b)
    assert at.joins == []
    at.count(node, 1, 0, b)
    assert classes(at.n_labels, at.joins).tolist() == [0, 1, 0, 1]
    assert at.slots[Slot(0, 1, 0)].tolist() == a[:, None].tolist()


def test_nothing_is_frozen_where_there_are_no_labels() -> None:
    at = labeller()
    at.freeze(at.graph.nodes[0], at.fresh(0), "no channels")
    assert at.freezes == []
    at.freeze_inputs(at.graph.nodes[0], "no labels yet")
    at.emit("r", [on(1, at.fresh(2))])
    at.freeze_inputs(at.graph.nodes[1], "now")
    frozen = [(f.node, f.reason, f.labels.tolist()) for f in at.freezes if f.labels.size]
    assert frozen == [(1, "now", [0, 1])]
