"""What a search begins with, and what history suggests."""

from dataclasses import replace

import numpy as np

from bocr_onnx.search import Past, Trial, TrialState, allocate
from bocr_onnx.search.hints import hints
from bocr_onnx.search.starts import start_policies

from .problems import problem, scorer
from .test_agent import past_search


def known(share, n=8):
    """Trials of the same model at another budget."""
    asked, rng = problem(share=share), np.random.default_rng(0)
    score, found = scorer(asked), []
    for i in range(n):
        widths = asked.projection.execute(rng.random(6))
        found.append(Trial(i, tuple(int(w) for w in widths), TrialState.COMPLETE, 0.5, score(widths).objective))
    return tuple(found)


def test_starts_are_on_the_budget_and_none_comes_twice():
    asked = replace(problem(), past=Past(known(0.7) + known(0.3), (past_search(),)))
    starts = start_policies(asked)
    assert starts[0].origin == "sensitivity"
    assert {s.origin for s in starts} == {
        "sensitivity", "sensitivity, flatter", "sensitivity, sharper", "uniform", "history",
    }  # fmt: skip
    assert len({tuple(s.widths.tolist()) for s in starts}) == len(starts)
    for start in starts:
        assert 0.98 <= asked.projection.budget.use(asked.projection.cost, start.widths[None])[0] <= 1


def test_few_trials_leave_room_for_the_search():
    assert len(start_policies(problem(n_trials=4))) == 2
    assert len(start_policies(problem(n_trials=1))) == 1


def test_the_best_known_policy_on_either_side_of_the_budget_is_suggested():
    above, below = known(0.7), known(0.3)
    found = hints(replace(problem(), past=Past(above + below)))
    full = problem().space.full
    best = [max(trials, key=lambda t: t.objective).widths for trials in (above, below)]
    assert [tuple((p * full).round().astype(int).tolist()) for p in found] == best


def test_another_model_corrects_the_allocation_where_groups_are_alike():
    asked = problem()
    past = past_search()
    same_as_allocation = replace(past, ratios=(past.allocation,), rewards=(1.0,))
    (point,) = hints(replace(asked, past=Past(others=(same_as_allocation,))))
    assert np.allclose(point, np.clip(allocate(asked) / asked.space.full, 0.02, 0.98))
    wider = replace(past, ratios=(tuple(min(1.0, 1.5 * r) for r in past.allocation),), rewards=(1.0,))
    (moved,) = hints(replace(asked, past=Past(others=(wider,))))
    assert (moved >= point).all()
