"""One contract for every strategy, and what sets `bocr` apart."""

import json
import subprocess
import sys

import numpy as np
import pytest

from bocr_onnx.errors import ModelError
from bocr_onnx.search import Evaluation, Inline, Journal, TrialState, best_trial, search
from bocr_onnx.search.proposals.starts import scatter, start_policies
from bocr_onnx.search.strategies import STRATEGIES
from bocr_onnx.search.strategies.bocr import MIN_RADIUS, START_RADIUS, Phase, phase_of
from bocr_onnx.search.trial import Trial
from tests.search.problems import coupled, problem, scorer

ONE_POLICY = {name for name, known in STRATEGIES.items() if not known.scored}
ONE_POLICY = {name for name, known in STRATEGIES.items() if not known.scored}
EVERY = pytest.mark.parametrize("name", sorted(STRATEGIES))


def run(name, asked, tmp_path, score=None, file="journal.jsonl"):
    journal = Journal(tmp_path / file, {"seed": asked.seed})
    return search(asked, STRATEGIES[name].strategy, Inline(score or scorer(asked)), journal)


@EVERY
def test_policies_are_allowed_and_on_the_budget(name, tmp_path):
    asked = problem()
    result = run(name, asked, tmp_path)
    assert len(result.trials) == (1 if name in ONE_POLICY else asked.n_trials)
    for trial in result.trials:
        widths = np.array(trial.widths)
        assert all(int(w) in c.tolist() for w, c in zip(widths, asked.space.choices, strict=True))
        used = asked.projection.budget.use(asked.projection.cost, widths[None])[0]
        assert 0.98 <= used <= 1
        assert trial.state is TrialState.COMPLETE
    assert len(result.finalists) >= 1


@EVERY
def test_same_seed_same_policies_in_another_process(name, tmp_path):
    here = [list(t.widths) for t in run(name, problem(n_trials=9), tmp_path).trials]
    code = (
        "import json, sys, pathlib\n"
        "from tests.search.strategies.test_strategies import run, problem\n"
        f"found = run({name!r}, problem(n_trials=9), pathlib.Path(sys.argv[1]), file='other.jsonl')\n"
        "print(json.dumps([list(t.widths) for t in found.trials]))"
    )
    there = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert json.loads(there.stdout) == here


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - ONE_POLICY))
def test_another_seed_gives_other_policies(name, tmp_path):
    first = run(name, problem(n_trials=12, seed=1), tmp_path, file="a.jsonl")
    second = run(name, problem(n_trials=12, seed=2), tmp_path, file="b.jsonl")
    assert [t.widths for t in first.trials] != [t.widths for t in second.trials]


@EVERY
def test_failed_trials_are_survived(name, tmp_path):
    asked = problem(n_trials=12)
    score, calls = scorer(asked), []

    def flaky(widths, floor):
        calls.append(widths)
        if len(calls) % 3 == 1:
            raise ModelError("the session broke")
        return score(widths)

    result = run(name, asked, tmp_path, flaky)
    failed = [t for t in result.trials if t.state is TrialState.FAILED]
    assert failed
    assert all("the session broke" in t.reason for t in failed)
    assert len(result.trials) == (1 if name in ONE_POLICY else 12)


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - ONE_POLICY))
def test_many_failed_trials_in_a_row_are_survived(name, tmp_path):
    asked = problem(n_trials=27)
    score, calls = scorer(asked), []

    def late(widths, floor):
        calls.append(widths)
        if len(calls) <= 22:
            raise ModelError("the session broke")
        return score(widths)

    states = [t.state for t in run(name, asked, tmp_path, late).trials]
    assert states == [TrialState.FAILED] * 22 + [TrialState.COMPLETE] * 5


def test_an_objective_that_is_not_a_number_fails_its_trial(tmp_path):
    asked = problem(n_trials=4)

    def broken(widths, floor):
        return Evaluation(0.5, float("nan"), float("nan"), 0.0)

    result = run("random", asked, tmp_path, broken)
    assert {t.state for t in result.trials} == {TrialState.FAILED}
    assert len(Journal(tmp_path / "journal.jsonl", {"seed": asked.seed}).trials) == 4


@EVERY
def test_one_dimension(name, tmp_path):
    result = run(name, problem(widths=(40,), n_trials=6), tmp_path)
    assert {t.widths for t in result.trials} <= {(w,) for w in range(1, 21)}


@EVERY
def test_a_coarse_grid_with_few_policies(name, tmp_path):
    result = run(name, problem(widths=(16, 16), grid=8, n_trials=8), tmp_path)
    assert all(w in (8, 16) for t in result.trials for w in t.widths)


def test_bocr_beats_its_controls(tmp_path):
    asked = problem(widths=(32,) * 4 + (64,) * 4 + (128,) * 4, n_trials=30)
    names = ("bocr", "sensitivity", "uniform", "random")
    best = {name: best_trial(run(name, asked, tmp_path, file=name).trials).objective for name in names}
    assert best["bocr"] > best["sensitivity"] + 0.1
    assert best["bocr"] > best["uniform"]
    assert best["bocr"] > best["random"]


def blind(asked):
    """The starts of `bocr`, then random policies: all that `bocr` is where what it learns is worth nothing."""
    starts = start_policies(asked)
    return lambda trials, pending: (
        starts[len(trials)] if len(trials) < len(starts) else scatter(asked, asked.rng(len(trials)))
    )


def test_bocr_beats_random_policies_after_the_same_starts():
    gains = []
    for seed in range(3):
        asked = problem(widths=(32, 64) * 3, n_trials=16, seed=seed)
        score, best = coupled(asked, seed), []
        for propose in (STRATEGIES["bocr"].strategy(asked), blind(asked)):
            trials = ()
            while len(trials) < asked.n_trials:
                widths = propose(trials, ()).widths
                found = score(widths)
                policy = tuple(widths.tolist())
                trials += (Trial(len(trials), policy, TrialState.COMPLETE, found.score, found.objective),)
            best.append(best_trial(trials).objective)
        gains.append(best[0] - best[1])
    assert np.median(gains) > 0.05


def test_bocr_takes_noise(tmp_path):
    asked = problem(n_trials=25)
    result = run("bocr", asked, tmp_path, scorer(asked, noise=0.02))
    truth = scorer(asked)
    chosen = truth(result.finalists[0]).objective
    assert chosen > truth(np.array(result.trials[0].widths)).objective


def test_a_search_goes_on_where_it_stopped(tmp_path):
    whole = run("bocr", problem(n_trials=14), tmp_path, file="whole.jsonl")
    asked = problem(n_trials=14)
    score, calls = scorer(asked), []

    def interrupted(widths, floor):
        if len(calls) == 8:
            raise KeyboardInterrupt
        calls.append(widths)
        return score(widths)

    first = run("bocr", asked, tmp_path, interrupted, "parts.jsonl")
    assert first.interrupted
    assert len(first.trials) == 8
    second = run("bocr", asked, tmp_path, file="parts.jsonl")
    assert [t.widths for t in second.trials] == [t.widths for t in whole.trials]


def test_phases_advance_when_the_search_stalls():
    def history(objectives):
        return tuple(Trial(i, (1,), TrialState.COMPLETE, 0.5, o) for i, o in enumerate(objectives))

    assert phase_of(history([1.0, 2.0, 3.0]), 1, 3, 3).number == 0
    stalled = phase_of(history([1.0, 0.5, 0.5, 0.5]), 1, 3, 3)
    assert stalled.number == 1
    assert stalled.radius < phase_of(history([1.0]), 1, 3, 3).radius
    assert phase_of(history([1.0] + [0.5] * 20), 1, 3, 3).number == 2
    assert phase_of(history([1.0] + [0.5] * 90), 1, 3, 3).radius == MIN_RADIUS
    assert phase_of(history([1.0] + [0.5] * 4), 5, 3, 3) == Phase(0, START_RADIUS), "starts do not stall"
    assert phase_of(history([1.0, 0.5, 0.5, 2.0, 0.5, 0.5]), 1, 3, 3).number == 0
