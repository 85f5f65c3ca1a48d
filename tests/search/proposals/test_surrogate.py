"""The surrogate: it ranks policies it has not seen, better than the error curves it begins with."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from bocr_onnx.search.proposals.surrogate import fit_surrogate
from tests.search.problems import coupled, problem

WIDTHS = (32, 64) * 4


def policies(asked, n, seed):
    rng = np.random.default_rng(seed)
    return np.array([asked.projection.execute(rng.random(8)) for _ in range(n)]) / asked.space.full


def values(asked, points, number=0):
    score = coupled(asked, number)
    return np.array([score(p * asked.space.full).objective for p in points])


def rank(one, other):
    return float(spearmanr(one, other).statistic)


def test_unseen_policies_are_ranked_better_than_by_the_curves():
    asked = problem(widths=WIDTHS)
    gains = []
    for number in range(3):
        seen, unseen = policies(asked, 30, 1), policies(asked, 80, 2)
        surrogate = fit_surrogate(asked, seen, values(asked, seen, number))
        truth = values(asked, unseen, number)
        found = rank(surrogate.posterior_mean(unseen), truth)
        assert found > 0.5
        gains.append(found - rank(-asked.proxy(unseen), truth))
    assert np.median(gains) > 0.25


@pytest.mark.parametrize("group", [0, 7])
def test_every_group_is_looked_at(group):
    asked = problem(widths=WIDTHS)
    seen, unseen = np.random.default_rng(0).uniform(0.1, 1, (2, 40, 8))
    surrogate = fit_surrogate(asked, seen, -np.abs(seen[:, group] - 0.5))
    assert rank(surrogate.posterior_mean(unseen), -np.abs(unseen[:, group] - 0.5)) > 0.8


def test_the_curves_rank_where_little_is_known():
    """Four policies cannot tell eight groups apart; curves that speak the truth can."""
    asked = problem(widths=WIDTHS)
    seen, unseen = policies(asked, 4, 1), policies(asked, 80, 2)
    surrogate = fit_surrogate(asked, seen, -asked.proxy(seen))
    assert rank(surrogate.posterior_mean(unseen), -asked.proxy(unseen)) > 0.95


def test_noise_is_taken_for_noise():
    """Policies of two groups on one budget lie on a line: neighbours tell how much of a value is noise."""
    asked = problem(widths=(256, 256))
    rng = np.random.default_rng(0)
    seen = np.array([asked.projection.execute(rng.random(2)) for _ in range(50)]) / asked.space.full
    truth = -asked.proxy(seen)
    measured = truth + 0.7 * truth.std() * rng.normal(size=50)
    answered = fit_surrogate(asked, seen, measured).posterior_mean(seen) * measured.std() + measured.mean()
    assert np.abs(answered - truth).mean() < 0.5 * np.abs(measured - truth).mean()


def test_the_scale_of_the_objective_changes_nothing():
    asked = problem(widths=WIDTHS)
    seen, unseen = policies(asked, 12, 1), policies(asked, 20, 2)
    plain, scaled = (fit_surrogate(asked, seen, a * values(asked, seen) + b) for a, b in ((1, 0), (1000, 5e4)))
    assert np.allclose(plain.posterior_mean(unseen), scaled.posterior_mean(unseen), atol=1e-2)


def test_policies_of_another_budget_tell_about_this_one():
    """Objectives are logarithms: those of a mild budget lie on the line of the hard one, and say how high it lies."""
    mild, hard = problem(widths=WIDTHS, share=0.7), problem(widths=WIDTHS, share=0.3)
    seen, unseen = policies(mild, 20, 1), policies(hard, 40, 2)
    truth, known = -np.log(hard.proxy(unseen)), -np.log(mild.proxy(seen))
    answered = fit_surrogate(hard, seen, known).posterior_mean(unseen) * known.std() + known.mean()
    far = abs(known.mean() - truth.mean())
    assert np.abs(answered - truth).mean() < 0.1 * far


@pytest.fixture(scope="module")
def fitted():
    """A problem, twenty policies, the surrogate that was fitted to them, and forty others."""
    asked = problem(widths=WIDTHS)
    seen = policies(asked, 20, 1)
    return asked, seen, fit_surrogate(asked, seen, values(asked, seen)), policies(asked, 40, 2)


NONE = np.empty((0, 8))


def test_what_is_expected_to_be_good_is_expected_to_improve(fitted):
    _, seen, surrogate, unseen = fitted
    gains = surrogate.acquisition(unseen, seen, NONE, 0)
    assert rank(gains, surrogate.posterior_mean(unseen)) > 0.6


def test_a_policy_that_is_awaited_promises_little(fitted):
    _, seen, surrogate, unseen = fitted
    free = surrogate.acquisition(unseen, seen, NONE, 0)
    best = int(np.argmax(free))
    awaited = surrogate.acquisition(unseen, seen, unseen[[best]], 0)
    assert awaited[best] < free[best] - 1
    assert np.argmax(awaited) != best


def test_gains_are_counted_from_the_best_of_the_baseline(fitted):
    asked, seen, surrogate, unseen = fitted
    order = np.argsort(values(asked, seen))
    over_worst, over_both = (surrogate.acquisition(unseen, seen[side], NONE, 0) for side in (order[:1], order[[0, -1]]))
    assert (over_both < over_worst - 0.1).all()


def test_the_same_seed_gives_the_same_gains(fitted):
    _, seen, surrogate, unseen = fitted
    one, again = (surrogate.acquisition(unseen, seen, NONE, 3) for _ in range(2))
    assert np.array_equal(one, again)


def test_given_hyperparameters_are_taken_over_and_new_policies_are_learned(fitted):
    asked, seen, surrogate, unseen = fitted
    same = fit_surrogate(asked, seen, values(asked, seen), surrogate.hyperparameters)
    assert np.allclose(same.posterior_mean(unseen), surrogate.posterior_mean(unseen), atol=1e-6)
    points = np.concatenate([seen, unseen[:20]])
    more = fit_surrogate(asked, points, values(asked, points), surrogate.hyperparameters)
    for name, value in surrogate.hyperparameters.items():
        assert np.array_equal(more.hyperparameters[name], value), name
    truth = values(asked, unseen[20:])
    assert rank(more.posterior_mean(unseen[20:]), truth) > rank(surrogate.posterior_mean(unseen[20:]), truth) - 0.1
