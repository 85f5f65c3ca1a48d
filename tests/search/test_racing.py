"""Racing: what is hopeless on the first images is stopped, and what is stopped still teaches."""

import numpy as np
import pytest

from bocr_onnx.search import Evaluation, Inline, Journal, TrialState, search
from bocr_onnx.search.racing import MIN_COMPLETE, floor, objectives
from bocr_onnx.search.strategies import find_strategy
from bocr_onnx.search.trial import Trial, completed, scored

from .problems import problem, scorer

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
    return search(asked, find_strategy("random"), Inline(racer(asked)), journal, race=race)


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
