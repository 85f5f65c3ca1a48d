"""`local`: near the best policy, further after an improvement and closer without one."""

import numpy as np
import pytest

from bocr_onnx.search import Trial, TrialState
from bocr_onnx.search.strategies import STRATEGIES
from bocr_onnx.search.strategies.local import MAX_RADIUS, MIN_RADIUS, START_RADIUS, radius_of
from tests.search.problems import problem


def history(objectives, origin="local"):
    return tuple(Trial(i, (1,), TrialState.COMPLETE, 0.5, o, origin=origin) for i, o in enumerate(objectives))


def test_the_radius_grows_with_an_improvement_and_four_failures_take_it_back():
    assert radius_of(()) == START_RADIUS
    assert radius_of(history([1.0])) == pytest.approx(1.5 * START_RADIUS)
    assert radius_of(history([1.0, 0.5])) < radius_of(history([1.0]))
    assert radius_of(history([1.0, 0.5, 0.5, 0.5, 1.0])) == pytest.approx(START_RADIUS)


def test_the_radius_has_bounds_and_starts_do_not_count():
    assert radius_of(history(range(20))) == MAX_RADIUS
    assert radius_of(history([1.0] + [0.0] * 50)) == MIN_RADIUS
    assert radius_of(history([1.0, 2.0, 0.5], origin="uniform")) == START_RADIUS


def proposed(asked, trials, n=12):
    """What is proposed after a history, and after those failed trials that make it longer."""
    propose, found = STRATEGIES["local"].strategy(asked), []
    for _ in range(n):
        found.append(propose(trials, ()))
        trials += (Trial(len(trials), tuple(found[-1].widths.tolist()), TrialState.FAILED, origin="local"),)
    return found


def known(asked, points):
    """Policies on the budget, the first the best."""
    policies = [asked.projection.execute(np.array(p)) for p in points]
    return tuple(Trial(i, tuple(w.tolist()), TrialState.COMPLETE, 0.5, -1.0 * i) for i, w in enumerate(policies))


RISING, FALLING = np.linspace(0.2, 0.8, 6), np.linspace(0.8, 0.2, 6)


def test_policies_around_the_best_are_proposed_and_none_twice():
    asked = problem()
    trials = known(asked, [RISING, FALLING, FALLING**2, FALLING**0.5])
    best, other = (np.array(t.widths) / asked.space.full for t in trials[:2])
    found = proposed(asked, trials)
    assert {p.origin for p in found} == {"local"}
    for proposal in found:
        ratios = proposal.widths / asked.space.full
        assert np.linalg.norm(ratios - best) < np.linalg.norm(ratios - other)
    policies = [tuple(p.widths.tolist()) for p in found]
    assert len(set(policies) | {t.widths for t in trials}) == len(policies) + len(trials)


def test_a_search_that_has_stalled_stays_closer():
    asked = problem(widths=(128,) * 6)
    young = known(asked, [RISING, FALLING, FALLING**2, FALLING**0.5])
    stalled = young + tuple(
        Trial(4 + i, young[1].widths, TrialState.COMPLETE, 0.5, -5.0, origin="local") for i in range(16)
    )
    best = np.array(young[0].widths)
    near, far = (
        np.median([np.abs(p.widths - best).max() for p in proposed(asked, trials)]) for trials in (stalled, young)
    )
    assert near < 0.6 * far
