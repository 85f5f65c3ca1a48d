"""Racing: what is hopeless on the first images is stopped, and what is stopped still teaches."""

import numpy as np
import pytest

from bocr_onnx.search import Evaluation, Inline, Journal, TrialState, search
from bocr_onnx.search.racing import MIN_COMPLETE, floor, objectives
from bocr_onnx.search.strategies import STRATEGIES
from bocr_onnx.search.trial import Proposal, Trial, completed, scored
from tests.search.problems import problem, scorer

OFFSET = 0.3


def racer(asked, noise=0.01):
    """The true scorer, with a first slice that is off by a constant and a little noise."""
    score, draw = scorer(asked), np.random.default_rng(1)

    def race(widths, bar):
        whole = score(widths)
        first = whole.objective - OFFSET + noise * float(draw.normal())
        if bar is not None and first < bar:
            return Evaluation(whole.score, None, first, 0.0)
        return Evaluation(whole.score, whole.objective, first, 0.0)

    return race


def run(asked, tmp_path, *, race=True):
    journal = Journal(tmp_path / f"{race}.jsonl", {"race": race})
    return search(asked, STRATEGIES["random"].strategy, Inline(racer(asked)), journal, race=race)


def test_hopeless_trials_are_stopped_and_the_best_is_not(tmp_path):
    asked = problem(n_trials=40)
    raced, whole = run(asked, tmp_path), run(asked, tmp_path, race=False)
    states = [t.state for t in raced.trials]
    assert states[:MIN_COMPLETE] == [TrialState.COMPLETE] * MIN_COMPLETE
    assert states.count(TrialState.STOPPED) > 15
    assert all(t.state is TrialState.COMPLETE for t in whole.trials)
    best = max(whole.trials, key=lambda t: t.objective)
    assert raced.trials[best.number].state is TrialState.COMPLETE
    assert all("hopeless" in t.reason for t in raced.trials if t.state is TrialState.STOPPED)


def test_a_stopped_trial_counts_as_what_is_expected_of_it(tmp_path):
    asked = problem(n_trials=40)
    truth = {t.number: t.objective for t in run(asked, tmp_path, race=False).trials}
    raced = scored(run(asked, tmp_path).trials)
    wrong = [abs(o - truth[t.number]) for t, o in zip(raced, objectives(raced), strict=True)]
    assert max(wrong) < 0.06


def test_finalists_were_scored_on_all_images(tmp_path):
    result = run(problem(n_trials=40), tmp_path)
    whole = {t.widths for t in completed(result.trials)}
    assert all(tuple(w.tolist()) in whole for w in result.finalists)
    assert result.trials[0].widths in {tuple(w.tolist()) for w in result.finalists}


@pytest.mark.parametrize("n", [0, MIN_COMPLETE - 1])
def test_nothing_is_stopped_while_little_is_known(n):
    trials = tuple(Trial(i, (1,), TrialState.COMPLETE, 0.5, 1.0 * i, first=1.0 * i) for i in range(n))
    assert floor(trials) is None


def test_noise_widens_the_margin():
    def floor_at(noise):
        trials = [
            Trial(i, (1,), TrialState.COMPLETE, 0.5, 1.0 * i, first=1.0 * i + noise * (-1) ** i) for i in range(6)
        ]
        return floor(tuple(trials))

    assert floor_at(0.2) < floor_at(0.0) - 0.1


def test_the_floor_is_the_best_less_the_usual_offset_and_one_noise():
    """One odd offset in five widens the noise and does not move the offset."""
    trials = [Trial(i, (1,), TrialState.COMPLETE, 0.5, 2.0 - i, first=2.0 - i - 0.25) for i in range(4)]
    odd = Trial(4, (1,), TrialState.COMPLETE, 0.5, 1.0, first=-0.25)
    assert floor((*trials, odd)) == pytest.approx(2 - 0.25 - np.sqrt(0.2))


def test_where_there_are_many_trials_the_finalists_are_not_the_luckiest(tmp_path):
    """Policies of two groups on one budget lie on a line, where neighbours tell luck from worth."""
    asked = problem(widths=(256, 256), n_trials=40)
    draw = np.random.default_rng(0)

    def truth(widths):
        return -float(asked.proxy(np.array(widths)[None] / asked.space.full)[0])

    def noisy(widths, bar=None):
        value = truth(widths) + 0.1 * float(draw.normal())
        return Evaluation(0.5, value, value, 0.0)

    journal = Journal(tmp_path / "journal.jsonl", {})
    result = search(asked, STRATEGIES["random"].strategy, Inline(noisy), journal, race=False)
    luckiest = max(result.trials, key=lambda t: t.objective).widths
    assert truth(result.finalists[0]) > truth(luckiest)


def test_what_exceeds_the_budget_is_not_scored(tmp_path):
    asked = problem(n_trials=3)
    used = asked.projection.budget.use(asked.projection.cost, asked.space.full[None])[0]

    def exceeds(_):
        return lambda trials, pending: Proposal(asked.space.full if len(trials) == 1 else asked.space.low, "a test")

    def score(widths, bar):
        assert widths.tolist() == asked.space.low.tolist()
        return Evaluation(0.5, 1.0, 1.0, 0.0)

    trials = search(asked, exceeds, Inline(score), Journal(tmp_path / "journal.jsonl", {})).trials
    assert [t.state for t in trials] == [TrialState.COMPLETE, TrialState.INFEASIBLE, TrialState.COMPLETE]
    assert trials[1].reason == f"it uses {used:.3f} of the budget"
