"""What a search begins with, and what history suggests."""

from dataclasses import replace

import numpy as np

from bocr_onnx.cost import CostModel, Terms
from bocr_onnx.devices import fit_latency
from bocr_onnx.search import Budget, Prior, Projection, Trial, TrialState, allocate, build_space
from bocr_onnx.search.proposals.hints import hints
from bocr_onnx.search.proposals.starts import allocate_by_macs, scatter, start_policies
from tests.search.problems import problem, scorer
from tests.search.strategies.test_amc import prior_search
from tests.search.test_projection import chain, single


def known(share, n=8):
    """Trials of the same model at another budget."""
    asked, rng = problem(share=share), np.random.default_rng(0)
    score, found = scorer(asked), []
    for i in range(n):
        widths = asked.projection.execute(rng.random(6))
        found.append(Trial(i, tuple(int(w) for w in widths), TrialState.COMPLETE, 0.5, score(widths).objective))
    return tuple(found)


def test_starts_are_on_the_budget_and_none_comes_twice():
    asked = replace(problem(), prior=Prior(known(0.7) + known(0.3), (prior_search(),)))
    starts = start_policies(asked)
    assert starts[0].origin == "sensitivity"
    assert {s.origin for s in starts} == {
        "sensitivity", "sensitivity, flatter", "sensitivity, sharper", "uniform", "history",
    }  # fmt: skip
    assert len({tuple(s.widths.tolist()) for s in starts}) == len(starts)
    for start in starts:
        assert 0.98 <= asked.projection.budget.use(asked.projection.cost, start.widths[None])[0] <= 1


def test_starts_come_in_one_order():
    alone = [s.origin for s in start_policies(problem())]
    assert alone == ["sensitivity", "sensitivity, flatter", "sensitivity, sharper", "uniform"]
    asked = replace(problem(), prior=Prior(known(0.7) + known(0.3), (prior_search(),)))
    assert [s.origin for s in start_policies(asked)] == ["sensitivity", *["history"] * 3, *alone[1:]]


def test_every_start_is_what_its_origin_says():
    asked = problem()
    found = {s.origin: s.widths.tolist() for s in start_policies(asked)}
    for origin, exponent in (("sensitivity", 1.0), ("sensitivity, flatter", 0.7), ("sensitivity, sharper", 1.5)):
        assert found[origin] == allocate(asked, exponent).tolist()
    ratios = np.array(found["uniform"]) / asked.space.full
    assert np.ptp(ratios) < 0.05


def test_a_budget_of_latency_begins_with_the_allocation_by_macs_too():
    base = problem(grid=8)
    cost, full, rng = base.projection.cost, base.space.full, np.random.default_rng(0)
    seen = [full, *(rng.integers(4, full + 1) for _ in range(30))]
    times = [0.1 + 1e-5 * float(cost.macs(np.minimum(full, -(-w // 16) * 16))[0]) for w in seen]
    timed = fit_latency(cost, seen, times)
    asked = replace(base, projection=replace(base.projection, cost=timed, budget=Budget({"latency": 0.6})))
    starts = {s.origin: s.widths for s in start_policies(asked)}
    budget = asked.projection.budget
    assert list(starts)[:1] == ["sensitivity"]
    assert all(budget.use(timed, w[None])[0] <= 1 for w in starts.values())
    by_macs = allocate_by_macs(asked)
    share = float(timed.macs(by_macs)[0] / timed.macs(full)[0])
    for more in (share + 0.05, share + 0.1):
        wider = allocate(replace(base, projection=replace(base.projection, budget=Budget({"flops": more}))))
        assert budget.use(timed, wider[None])[0] > 1
    assert "sensitivity, by MACs" in starts or by_macs.tolist() == starts["sensitivity"].tolist()


def test_by_the_curves_the_first_start_is_the_best():
    asked = problem(widths=(32, 64, 128) * 3)
    predicted = {s.origin: asked.proxy(s.widths[None] / asked.space.full)[0] for s in start_policies(asked)}
    assert min(predicted, key=predicted.get) == "sensitivity"
    assert predicted["sensitivity"] < 0.9 * predicted["uniform"]
    rng = np.random.default_rng(0)
    others = np.array([scatter(asked, rng).widths for _ in range(100)]) / asked.space.full
    assert predicted["sensitivity"] < asked.proxy(others).min()


def test_groups_that_lose_more_keep_more():
    """The curves of odd groups are three times those of even ones; all groups are equally wide."""
    first = start_policies(problem(widths=(64,) * 6))[0].widths
    assert first[[1, 3]].min() > first[[2, 4]].max()


def test_of_groups_that_lose_alike_the_costly_one_gives_more():
    asked = problem(widths=(64, 64))
    cost, index = chain([64, 64])
    each = Terms(np.array([1.0, 8.0]), single(2))
    projection = Projection(build_space(index), CostModel(cost.full, each, each, each, 0), Budget({"params": 0.5}))
    cheap, costly = allocate(replace(asked, projection=projection, curves=(asked.curves[0],) * 2))
    assert cheap > 1.3 * costly


def test_random_policies_are_spread_over_the_space():
    asked, rng = problem(), np.random.default_rng(0)
    drawn = [scatter(asked, rng) for _ in range(60)]
    assert {d.origin for d in drawn} == {"random"}
    ratios = np.array([d.widths for d in drawn]) / asked.space.full
    assert (ratios.min(axis=0) < 0.5).all()
    assert (ratios.max(axis=0) > 0.9).all()


def test_few_trials_leave_room_for_the_search():
    assert len(start_policies(problem(n_trials=4))) == 2
    assert len(start_policies(problem(n_trials=1))) == 1


def test_the_best_known_policy_on_either_side_of_the_budget_is_suggested():
    above, below = known(0.7), known(0.3)
    found = hints(replace(problem(), prior=Prior(above + below)))
    full = problem().space.full
    best = [max(trials, key=lambda t: t.objective).widths for trials in (above, below)]
    assert [tuple((p * full).round().astype(int).tolist()) for p in found] == best


def test_known_policies_of_the_nearest_budget_are_suggested_even_where_others_score_more():
    near, far = known(0.6), known(0.9)
    assert max(t.objective for t in far) > max(t.objective for t in near)
    (found,) = hints(replace(problem(), prior=Prior(far + near)))
    best = max(near, key=lambda t: t.objective).widths
    assert tuple((found * problem().space.full).round().astype(int).tolist()) == best


def test_another_model_corrects_the_allocation_where_groups_are_alike():
    asked = problem()
    past = prior_search()
    same_as_allocation = replace(past, ratios=(past.allocation,), rewards=(1.0,))
    (point,) = hints(replace(asked, prior=Prior(others=(same_as_allocation,))))
    assert np.allclose(point, np.clip(allocate(asked) / asked.space.full, 0.02, 0.98))
    wider = replace(past, ratios=(tuple(min(1.0, 1.5 * r) for r in past.allocation),), rewards=(1.0,))
    (moved,) = hints(replace(asked, prior=Prior(others=(wider,))))
    assert (moved >= point).all()
