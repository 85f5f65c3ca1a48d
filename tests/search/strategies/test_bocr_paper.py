"""The published method: densities, clusters, wall, schedule and rollback."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from botorch.acquisition.analytic import LogExpectedImprovement
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon, squareform
from scipy.stats import gaussian_kde

from bocr_onnx.errors import ModelError
from bocr_onnx.options import StrategyOptions
from bocr_onnx.search import (
    Budget,
    GroupReader,
    Inline,
    Journal,
    Projection,
    best_trial,
    build_space,
    search,
)
from bocr_onnx.search.strategies.bocr_paper import wall
from bocr_onnx.search.strategies.bocr_paper.densities import (
    GRID,
    STEP,
    cluster_counts,
    densities,
    distances,
    published_clusters,
)
from bocr_onnx.search.strategies.bocr_paper.isotropic import JITTER, fit_isotropic
from bocr_onnx.search.strategies.bocr_paper.rollback import Schedule, elites, make_view, rollbacks, schedule
from bocr_onnx.search.strategies.bocr_paper.strategy import bocr_paper
from bocr_onnx.search.trial import Trial, TrialState
from tests.search.problems import problem, scorer
from tests.search.test_projection import chain, projection

SIMILARITIES = ("euclidean", "jensen-shannon", "structural")
EVERY_SIMILARITY = pytest.mark.parametrize("similarity", SIMILARITIES)


def readers(importance, kernel=3, n_outputs=16):
    n = len(importance)
    macs = float(n * n_outputs * kernel**2 * 64)
    return GroupReader(n, n_outputs, kernel, 1, n * n_outputs * kernel**2, macs, 64, tuple(map(float, importance)))


def asked(widths=(8, 8, 1, 12, 12, 16), n_trials=20, **chosen):
    rng = np.random.default_rng(0)
    same = rng.gamma(2.0, 3.0, 8)
    looks = [same, same, [4.0], np.full(12, 2.0), *(rng.gamma(2.0, 9.0, n) for n in widths[4:])]
    known = tuple(readers(values, 1 + 2 * (i > 2)) for i, values in enumerate(looks[: len(widths)]))
    return replace(problem(widths, n_trials=n_trials), readers=known, settings=StrategyOptions(**chosen))


def history(objectives, n_groups=1):
    states = [TrialState.FAILED if o is None else TrialState.COMPLETE for o in objectives]
    return tuple(
        Trial(i, (1,) * n_groups, s, None if o is None else 0.5, o)
        for i, (o, s) in enumerate(zip(objectives, states, strict=True))
    )


def test_densities_are_those_of_scipy():
    rng = np.random.default_rng(1)
    wide, narrow = rng.normal(0, 2.5, 300), rng.normal(3, 2.5, 50)
    spreads = [wide.std(), narrow.std()]
    found = densities((wide, narrow))
    for got, values in zip(found, (wide, narrow), strict=True):
        shifted = (values - np.median(values)) * 2.5 / np.median(spreads)
        np.testing.assert_allclose(got, gaussian_kde(shifted)(GRID), rtol=1e-9)


def test_densities_do_not_depend_on_the_unit():
    rng = np.random.default_rng(2)
    groups = tuple(rng.gamma(2.0, scale, 40) for scale in (1.0, 2.0, 3.0))
    np.testing.assert_allclose(densities(groups), densities(tuple(1e4 * g + 7 for g in groups)), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("values", [[3.0], [2.0, 2.0, 2.0], [0.0], [1.0, 1e9]])
def test_a_group_without_spread_has_a_density(values):
    found = densities((np.array(values), np.linspace(0, 5, 30)))
    assert np.isfinite(found).all()
    assert found[1].sum() * STEP == pytest.approx(1, abs=1e-2)


@EVERY_SIMILARITY
def test_distances_are_symmetric_and_zero_between_alike_groups(similarity):
    found = squareform(distances(asked(similarity=similarity)), checks=True)
    assert np.isfinite(found).all()
    assert found.shape == (5, 5), "the group of one channel has no choice"
    assert found[0, 1] == 0
    assert (found[0, 2:] > 0).all()


def test_jensen_shannon_is_that_of_scipy():
    known = asked(similarity="jensen-shannon")
    found = squareform(distances(known))
    free = [known.readers[i] for i in known.space.free]
    first, last = densities(tuple(np.array(t.importance) for t in free))[[0, -1]]
    assert found[0, -1] == pytest.approx(jensenshannon(first, last))


@EVERY_SIMILARITY
def test_clusters_are_as_many_as_asked(similarity):
    phases = published_clusters(asked(similarity=similarity))
    assert [len(set(c[c >= 0].tolist())) for c in phases] == [2, 3, 5]
    assert all(c[2] == -1 for c in phases)
    assert all(c[0] == c[1] for c in phases[:-1]), "identical groups are joined first"


def test_rollback_says_which_phases_there_are():
    assert cluster_counts(27, "gradual") == (3, 9, 27)
    assert cluster_counts(27, "direct") == (3, 27)
    assert cluster_counts(27, "none") == (27,)
    assert cluster_counts(2, "gradual") == (2,)
    assert cluster_counts(3, "gradual") == (2, 3)


def test_the_schedule_is_the_published_one():
    assert schedule(200, 3) == Schedule(10, 20, ((80, 100), (130, 150)))
    assert schedule(200, 2) == Schedule(10, 20, ((80, 100),))
    assert schedule(200, 1).windows == ()
    assert schedule(40, 3) == Schedule(4, 4, ((16, 20), (26, 30)))


@given(n_trials=st.integers(8, 400))
def test_every_stage_proposes(n_trials):
    plan = schedule(n_trials, 3)
    at = rollbacks(history([1.0] + [0.0] * (n_trials - 1)), plan)
    assert len(at) == 2
    assert plan.n_starts < at[0] < at[1] < n_trials


def test_rollbacks_by_history():
    gradual, direct = schedule(200, 3), schedule(200, 2)
    stalled, rising = [1.0] + [0.0] * 199, list(range(200))
    assert rollbacks(history(stalled[:79]), gradual) == ()
    assert rollbacks(history(stalled[:80]), gradual) == (80,)
    assert rollbacks(history(stalled), gradual) == (80, 130)
    assert rollbacks(history(rising), gradual) == (100, 150)
    assert rollbacks(history(stalled), direct) == (80,)
    assert rollbacks(history(stalled), schedule(200, 1)) == ()
    late = [*range(70), *[0] * 50]
    assert rollbacks(history(late), gradual) == (90,), "20 after the best, which was the 70th"
    assert rollbacks(history([1.0] + [None] * 99), gradual) == (80,), "failures are evaluations"


def test_elites_are_the_best_on_the_budget():
    values = np.arange(30.0)
    assert elites(values, np.ones(30)).tolist() == list(range(29, 19, -1))
    assert elites(values[:8], np.ones(8)).tolist() == [7, 6, 5, 4], "no more than half"
    use = np.where(np.arange(30) < 25, 0.995, 0.9)
    assert elites(values, use).tolist() == list(range(24, 14, -1))
    assert elites(values[:4], np.full(4, 0.9)).tolist() == [3, 2]
    assert elites(values[:0], use[:0]).tolist() == []


def test_a_view_averages_by_macs_and_expands():
    known = asked()
    view = make_view(known, published_clusters(known)[0])
    rng = np.random.default_rng(0)
    ratios = rng.random((5, 6))
    ratios[:, 2] = 1
    found = view.coordinates(ratios)
    members = view.clusters == 0
    assert (found[:, 0] >= ratios[:, members].min(axis=1)).all()
    assert (found[:, 0] <= ratios[:, members].max(axis=1)).all()
    np.testing.assert_allclose(view.coordinates(view.expand(found)), found)
    assert (view.expand(found)[:, 2] == 1).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 10), phase=st.integers(0, 2))
def test_bounds_contain_the_elites_and_have_an_extent(seed, n, phase):
    known = problem(widths=(16, 32, 64, 64, 8), grid=4)
    view = make_view(known, published_clusters(known)[phase])
    rng = np.random.default_rng(seed)
    executed = np.array([known.projection.execute(rng.random(5)) for _ in range(n)]) / known.space.full
    points = view.coordinates(executed)
    low, high = view.box(points)
    assert (low <= points + 1e-12).all()
    assert (high >= points - 1e-12).all()
    assert (high - low >= view.extent / 2 - 1e-12).all()
    assert (low >= view.low).all()
    assert (high <= 1).all()


@settings(max_examples=40, deadline=None)
@given(
    widths=st.lists(st.integers(24, 128), min_size=3, max_size=10),
    share=st.floats(0.3, 0.9),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_wall_is_one_sided_and_within_the_budget(widths, share, seed):
    found = projection(widths, Budget({"flops": share}))
    points = np.random.default_rng(seed).random((4, len(widths)))
    capped = wall.cap(found, points)
    low = found.space.low / found.space.full
    use = found.budget.use(found.cost, capped * found.space.full)
    assert (capped <= np.maximum(points, low) + 1e-12).all()
    assert (capped >= low - 1e-12).all()
    assert (use <= 1 + 1e-9).all()
    asked_use = found.budget.use(found.cost, np.maximum(points, low) * found.space.full)
    np.testing.assert_allclose(capped[asked_use <= 1], np.maximum(points, low)[asked_use <= 1])
    for point in points:
        executed = wall.execute(found, point)
        assert found.budget.use(found.cost, executed[None])[0] <= 1
        assert all(int(w) in c.tolist() for w, c in zip(executed, found.space.choices, strict=True))


def test_the_wall_is_greedy_and_leaves_frozen_groups():
    cost, index = chain([64, 64, 64, 64])
    found = Projection(build_space(index, frozen=("g1",)), cost, Budget({"flops": 0.5}))
    capped = wall.cap(found, np.ones((1, 4)))[0]
    assert capped[0] > 0.9, "the first takes what there is"
    assert capped[1] == 1
    assert capped[3] == pytest.approx(7 / 64, abs=0.02), "the last pays"
    assert wall.execute(found, np.full(4, 0.1))[1] == 64
    assert found.budget.use(found.cost, wall.execute(found, np.ones(4))[None])[0] <= 1


def test_the_surrogate_finds_what_is_better_and_minds_what_is_pending():
    x = np.linspace(0.1, 1, 8)[:, None]
    surrogate = fit_isotropic(x, -((x[:, 0] - 0.6) ** 2), x[:0])
    gains = surrogate.improvement(np.array([[0.15], [0.6], [0.95]]))
    assert gains.argmax() == 1
    awaited = fit_isotropic(x, -((x[:, 0] - 0.6) ** 2), np.array([[0.6]]))
    assert awaited.improvement(np.array([[0.6]]))[0] < gains[1]


def test_the_improvement_is_that_of_botorch():
    rng = np.random.default_rng(0)
    x, asked_at = rng.random((20, 3)), rng.random((300, 3))
    surrogate = fit_isotropic(x, x.sum(axis=1), x[:0])
    reference = LogExpectedImprovement(surrogate.model, best_f=surrogate.best + JITTER)
    with torch.no_grad():
        expected = reference(torch.from_numpy(asked_at).unsqueeze(1)).numpy()
    assert expected.min() < -15
    np.testing.assert_allclose(surrogate.improvement(asked_at), expected, rtol=1e-3, atol=1e-3)


def run(known, tmp_path, score=None, file="journal.jsonl"):
    return search(known, bocr_paper, Inline(score or scorer(known)), Journal(tmp_path / file, {}), race=False)


@pytest.mark.parametrize("constraint", ["shift", "wall"])
@pytest.mark.parametrize(("rollback", "n_phases"), [("gradual", 3), ("direct", 2), ("none", 1)])
def test_a_search_goes_through_its_phases(constraint, rollback, n_phases, tmp_path):
    known = replace(problem(n_trials=24), settings=StrategyOptions(rollback=rollback, constraint=constraint))
    trials = run(known, tmp_path).trials
    phases = [t.origin for t in trials if t.origin.startswith("phase")]
    assert phases == sorted(phases)
    assert set(phases) == {f"phase {i + 1} of {n_phases}" for i in range(n_phases)}
    assert len({t.widths for t in trials}) == 24
    for trial in trials:
        used = known.projection.budget.use(known.projection.cost, np.array([trial.widths]))[0]
        assert used <= 1
        assert constraint == "wall" or used >= 0.99


def test_the_search_beats_its_sobol_points(tmp_path):
    known = problem(n_trials=40)
    trials = run(known, tmp_path).trials
    assert best_trial(trials).objective > best_trial(trials[:4]).objective + 0.05


def test_frozen_groups_stay(tmp_path):
    cost, index = chain([32, 32, 64, 64])
    known = problem(widths=(32, 32, 64, 64), n_trials=14)
    known = replace(known, projection=Projection(build_space(index, frozen=("g1",)), cost, Budget({"flops": 0.5})))
    assert all(t.widths[1] == 32 for t in run(known, tmp_path).trials)


def test_many_failures_are_survived(tmp_path):
    known = problem(n_trials=16)
    score, calls = scorer(known), []

    def failing(widths, floor):
        calls.append(widths)
        if len(calls) < 13:
            raise ModelError("the session broke")
        return score(widths)

    trials = run(known, tmp_path, failing).trials
    assert len({t.widths for t in trials}) == 16
    assert trials[-1].state is TrialState.COMPLETE


def test_what_is_pending_counts_and_is_not_proposed_again():
    known = problem(n_trials=30)
    propose, score = bocr_paper(known), scorer(known)
    trials = ()
    for number in range(8):
        widths = propose(trials, ()).widths
        found = score(widths)
        trials += (Trial(number, tuple(map(int, widths)), TrialState.COMPLETE, found.score, found.objective),)
    pending = ()
    for _ in range(3):
        pending += (propose(trials, pending).widths,)
    assert len({t.widths for t in trials} | {tuple(map(int, w)) for w in pending}) == 11
    again = bocr_paper(known)(trials, pending[:2]).widths
    assert again.tolist() == pending[2].tolist(), "a fresh proposer proposes the same"


def test_a_small_space_repeats_only_when_it_is_exhausted(tmp_path):
    known = problem(widths=(16, 16), grid=4, n_trials=10)
    trials = run(known, tmp_path).trials
    fresh = [t.widths not in {u.widths for u in trials[: t.number]} for t in trials]
    assert fresh == sorted(fresh, reverse=True)
