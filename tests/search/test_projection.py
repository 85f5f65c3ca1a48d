"""Space, budget and projection."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bocr_onnx.cost import CostModel, Terms
from bocr_onnx.errors import BudgetError, UsageError
from bocr_onnx.groups import ChannelGroup, GroupIndex
from bocr_onnx.search import Budget, Projection, build_space
from bocr_onnx.search.projection import SLACK


def chain(widths):
    """Cost and index of a chain of layers: MACs are the sum of products of neighbouring widths."""
    n = len(widths)
    forms = np.zeros((n + 1, 2, n + 1))
    for layer in range(n + 1):
        forms[layer, 0, layer] = 1 if layer else 0
        forms[layer, 1, layer + 1 if layer < n else 0] = 1
    forms[0, 0, 0] = 3
    forms[n, 1, 0] = 10
    terms = Terms(np.ones(n + 1), forms)
    starts = np.cumsum([0, *widths])
    groups = tuple(ChannelGroup(f"g{i}", int(starts[i]), w, ()) for i, w in enumerate(widths))
    index = GroupIndex(None, groups, (), {}, {}, {}, int(starts[-1]))
    return CostModel(np.array(widths), terms, terms, terms, 0), index


def projection(widths, budget, grid=1):
    cost, index = chain(widths)
    return Projection(build_space(index, grid=grid), cost, budget)


@settings(max_examples=60, deadline=None)
@given(
    widths=st.lists(st.integers(24, 128), min_size=4, max_size=12),
    share=st.floats(0.2, 0.9),
    seed=st.integers(0, 2**32 - 1),
)
def test_executed_policies_lie_on_the_budget(widths, share, seed):
    found = projection(widths, Budget({"flops": share}))
    executed = found.execute(np.random.default_rng(seed).random(len(widths)))
    used = found.budget.use(found.cost, executed[None])[0]
    assert used <= 1
    finest = min(found.budget.use(found.cost, m[None])[0] for m in found._moves(executed, 1)) if used < 1 - SLACK else 2
    assert used >= 1 - SLACK or finest > 1, "a step that fits was left out"
    assert np.all(executed >= 1)
    assert np.all(executed <= widths)


BOUNDED = settings(max_examples=100, deadline=None, derandomize=True)
"""The same examples every time, few enough to be quick."""


@BOUNDED
@given(
    widths=st.lists(st.integers(16, 256), min_size=4, max_size=12),
    share=st.floats(0.2, 0.9),
    grid=st.sampled_from([1, 8]),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_step_that_fits_is_nearer_to_what_was_asked(widths, share, grid, seed):
    found = projection(widths, Budget({"flops": share}), grid)
    assume(found.budget.use(found.cost, found.space.low[None])[0] <= 1)
    asked = np.random.default_rng(seed).random(len(widths))
    executed = found.execute(asked)
    wish = found.shift(asked[None])[0] * found.space.full
    used = found.budget.use(found.cost, executed[None])[0]
    assert used <= 1
    for group in found.space.free:
        to = found.space.step(int(group), int(executed[group]), 1)
        other = executed.copy()
        other[group] = executed[group] if to is None else to
        if to is not None and found.budget.use(found.cost, other[None])[0] <= 1:
            assert used >= 0.995
            assert distance(other, wish, widths) >= distance(executed, wish, widths)


@BOUNDED
@given(
    widths=st.lists(st.integers(48, 128), min_size=3, max_size=8),
    share=st.floats(0.3, 0.9),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_rounding_leaves_on_the_budget_is_not_repaired(widths, share, seed):
    found = projection(widths, Budget({"flops": share}))
    asked = np.random.default_rng(seed).random(len(widths))
    rounded = found.space.snap(found.shift(asked[None]))
    if 0.995 <= found.budget.use(found.cost, rounded)[0] <= 1:
        assert found.execute(asked).tolist() == rounded[0].tolist()


@BOUNDED
@given(
    widths=st.lists(st.integers(10, 60), min_size=3, max_size=8),
    share=st.floats(0.3, 0.9),
    seed=st.integers(0, 2**32 - 1),
)
def test_of_all_policies_on_the_budget_the_nearest_is_executed(widths, share, seed):
    """Every channel costs the same here: a policy is the nearest where no exchange of two channels is nearer."""
    cost, index = chain(widths)
    n = len(widths)
    each = Terms(np.ones(n), single(n))
    found = Projection(build_space(index), CostModel(cost.full, each, each, each, 0), Budget({"params": share}))
    asked = np.random.default_rng(seed).random(n)
    executed = found.execute(asked)
    wish = found.shift(asked[None])[0] * found.space.full
    for giver, taker in permutations(range(n), 2):
        other = executed.copy()
        other[giver] -= 1
        other[taker] += 1
        if found.space.holds(other):
            assert distance(other, wish, widths) >= distance(executed, wish, widths) - 1e-9


@BOUNDED
@given(
    groups=st.lists(st.tuples(st.integers(12, 96), st.floats(0.15, 0.95)), min_size=2, max_size=8),
)
def test_a_policy_that_uses_the_whole_budget_stays(groups):
    full = np.array([n for n, _ in groups])
    widths = np.array([round(share * n) for n, share in groups])
    cost, _ = chain(list(full))
    share = cost.macs(widths[None])[0] / cost.macs(full[None])[0]
    found = projection(list(full), Budget({"flops": float(share) * (1 + 1e-9)}))
    assert found.execute(widths / full).tolist() == widths.tolist()


@BOUNDED
@given(
    widths=st.lists(st.integers(24, 96), min_size=2, max_size=8),
    share=st.floats(0.3, 0.9),
    seed=st.integers(0, 2**32 - 1),
)
def test_all_groups_are_shifted_alike_onto_the_budget(widths, share, seed):
    found = projection(widths, Budget({"flops": share}))
    asked = np.random.default_rng(seed).uniform(0.2, 0.8, len(widths))
    shifted = found.shift(asked[None])[0]
    assert found.budget.use(found.cost, (shifted * found.space.full)[None])[0] == pytest.approx(1, abs=1e-4)
    inside = (shifted > found.space.low / found.space.full) & (shifted < 1)
    moved = np.log(shifted[inside] / (1 - shifted[inside])) - np.log(asked[inside] / (1 - asked[inside]))
    assert np.ptp(moved) < 1e-6


def distance(policy, wish, full):
    """What the projection minimizes: the squared distance between keep ratios."""
    return float(np.sum(((policy - wish) / np.array(full)) ** 2))


def test_projection_keeps_the_order_of_the_wishes():
    found = projection([64] * 6, Budget({"flops": 0.4}))
    executed = found.execute(np.linspace(0.2, 0.9, 6))
    assert np.all(np.diff(executed) >= 0)
    assert executed[-1] > executed[0]


def test_projection_is_order_free():
    found = projection([64] * 5, Budget({"flops": 0.5}))
    executed = found.execute(np.full(5, 0.3))
    assert executed.max() - executed.min() <= 2


def test_executing_an_executed_policy_changes_nothing():
    found = projection([64, 96, 128, 64], Budget({"flops": 0.5}))
    executed = found.execute(np.array([0.9, 0.2, 0.6, 0.5]))
    again = found.execute(executed / found.space.full)
    assert np.abs(again - executed).max() <= 1


def test_grid_and_small_groups():
    cost, index = chain([64, 20, 12, 6])
    space = build_space(index, grid=8, frozen=("g2",))
    assert space.choices[0].tolist() == [8, 16, 24, 32, 40, 48, 56, 64]
    assert space.choices[1].tolist() == [8, 16, 20]
    assert space.choices[2].tolist() == [12]
    assert space.choices[3].tolist() == [3, 6]
    executed = Projection(space, cost, Budget({"flops": 0.5})).execute(np.full(4, 0.5))
    assert all(int(w) in c.tolist() for w, c in zip(executed, space.choices, strict=True))


def test_two_budgets_hold_together():
    cost, index = chain([64] * 4)
    fewer = CostModel(cost.full, cost.macs_terms, Terms(np.ones(4), single(4)), cost.bytes_terms, 0)
    found = Projection(build_space(index), fewer, Budget({"flops": 0.9, "params": 0.5}))
    executed = found.execute(np.full(4, 0.5))
    assert fewer.params(executed)[0] <= 0.5 * fewer.params(fewer.full)[0]
    assert fewer.macs(executed)[0] <= 0.9 * fewer.macs(fewer.full)[0]


def single(n):
    forms = np.zeros((n, 2, n + 1))
    forms[np.arange(n), 0, np.arange(1, n + 1)] = 1
    forms[:, 1, 0] = 1
    return forms


def test_an_unreachable_budget_names_the_smallest_reachable():
    found = projection([16, 16], Budget({"flops": 0.01}))
    with pytest.raises(BudgetError, match=r"smallest reachable share is 0\.\d+") as error:
        found.budget.check_reachable(found.cost, found.space, "Try less.")
    assert error.value.hint == "Try less."
    smallest = float(str(error.value).split("share is ")[1].split()[0])
    projection([16, 16], Budget({"flops": smallest})).budget.check_reachable(found.cost, found.space)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 2.0])
def test_shares_lie_between_zero_and_one(share):
    with pytest.raises(UsageError, match="between 0 and 1"):
        Budget({"flops": share})


def test_a_budget_is_needed():
    with pytest.raises(UsageError, match="a budget must be given"):
        Budget({})
