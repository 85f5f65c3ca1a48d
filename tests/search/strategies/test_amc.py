"""The agent: its states, its learning, its assistant, and what it takes over from history."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from bocr_onnx.options import StrategyOptions
from bocr_onnx.search import Inline, Journal, Prior, PriorSearch, allocate, best_trial, search
from bocr_onnx.search.features import group_features, published_features
from bocr_onnx.search.strategies import STRATEGIES
from bocr_onnx.search.strategies.amc.assistant import fit_assistant, policy_features
from bocr_onnx.search.strategies.amc.ddpg import Agent, join, transitions
from bocr_onnx.search.strategies.amc.memory import Memory
from bocr_onnx.search.strategies.amc.tasks import prior_task, this_task
from bocr_onnx.search.torch_thread import one_torch_thread
from bocr_onnx.search.trial import ratios
from tests.search.problems import problem, scorer

BOTH = pytest.mark.parametrize("augmented", [False, True])


def prior_search(n_trials=24, widths=(16, 32, 32, 64), seed=5):
    """A finished search of another model, as history would tell it."""
    asked = problem(widths=widths, n_trials=n_trials, seed=seed)
    done = [STRATEGIES["random"].strategy(asked)(tuple(range(n)), ()) for n in range(n_trials)]
    score = scorer(asked)
    executed = np.array([p.widths for p in done]) / asked.space.full
    return PriorSearch(
        model="other.onnx",
        budget=0.5,
        features=tuple(map(tuple, group_features(asked).tolist())),
        published=tuple(map(tuple, published_features(asked).tolist())),
        allocation=tuple((allocate(asked) / asked.space.full).tolist()),
        ratios=tuple(map(tuple, executed.tolist())),
        rewards=tuple(score(p.widths).objective for p in done),
    )


def run(asked, tmp_path, file="j.jsonl"):
    journal = Journal(tmp_path / file, {"seed": asked.seed})
    return search(asked, STRATEGIES["amc"].strategy, Inline(scorer(asked)), journal)


@BOTH
def test_states_follow_what_was_decided(augmented):
    asked = problem()
    task = this_task(asked, augmented=augmented)
    wide, narrow = np.ones(task.n_steps), np.full(task.n_steps, 0.5)
    assert task.path(wide).shape == (task.n_steps, task.states.shape[1] + (4 if augmented else 3))
    assert np.allclose(task.path(wide)[:, -3], 0)
    lost = np.concatenate([[0], np.cumsum(0.5 * task.shares)[:-1]])
    assert np.allclose(task.path(narrow)[:, -3], lost)
    assert task.path(narrow)[1:, -1].tolist() == [0.5] * (task.n_steps - 1)
    assert task.path(narrow)[0, -1] == 1
    changed = narrow.copy()
    changed[3:] = 0.9
    assert np.array_equal(task.path(narrow)[:4], task.path(changed)[:4])


def test_frozen_groups_take_no_step():
    asked = problem()
    space = asked.projection.space
    choices = (space.choices[0][-1:], *space.choices[1:])
    frozen = replace(asked, projection=replace(asked.projection, space=replace(space, choices=choices)))
    assert this_task(frozen, augmented=True).n_steps == len(space.full) - 1


def test_the_critic_learns_the_reward_to_come_and_the_actor_what_pays():
    rng = np.random.default_rng(0)
    agent, parts = Agent(2, 0), []
    for _ in range(60):
        actions = rng.random(2)
        path = np.array([[0.0, 1.0], [1.0, actions[0]]])
        parts.append(transitions(path, actions, float(1 - 4 * np.mean((actions - [0.2, 0.8]) ** 2))))
    whole = join(parts)
    before = agent.act(np.array([[0.0, 1.0]]))[0]
    with one_torch_thread():
        for _ in range(700):
            agent.learn(whole.take(rng.integers(len(whole.state), size=64)))
    first = agent.act(np.array([[0.0, 1.0]]))[0]
    second = agent.act(np.array([[1.0, 0.2]]))[0]
    assert abs(first - 0.2) < abs(before - 0.2)
    assert second - first > 0.3


def test_the_assistant_ranks_policies_it_has_not_seen():
    asked = problem()
    task, score, rng = this_task(asked, augmented=True), scorer(asked), np.random.default_rng(0)
    widths = np.array([asked.projection.execute(rng.random(6)) for _ in range(60)])
    known = policy_features(task, widths / asked.space.full)
    rewards = np.array([score(w).objective for w in widths])
    assistant = fit_assistant(known[:40], rewards[:40], rng)
    assert spearmanr(assistant.predict(known[40:]), rewards[40:]).statistic > 0.6


@BOTH
def test_a_past_search_becomes_a_task(augmented):
    past = prior_search()
    task, taken = prior_task(past, augmented=augmented)
    assert taken.shape == (24, task.n_steps)
    assert task.path(taken[0]).shape[1] == this_task(problem(), augmented=augmented).path(np.ones(6)).shape[1]


@pytest.mark.parametrize("transfer", ["plain", "augmented"])
def test_history_changes_where_the_agent_begins(transfer):
    asked = replace(problem(), settings=StrategyOptions(transfer=transfer))
    told = replace(asked, prior=Prior(others=(prior_search(),)))
    task = this_task(asked, augmented=transfer == "augmented")
    rolls = [Memory(p, task, np.copy).roll(1, 1e-3, np.random.default_rng(0)) for p in (asked, told)]
    assert np.abs(rolls[0] - rolls[1]).max() > 0.01
    again = Memory(told, task, np.copy).roll(1, 1e-3, np.random.default_rng(0))
    assert np.array_equal(rolls[1], again)


@pytest.mark.parametrize(
    "settings",
    [StrategyOptions(), StrategyOptions(assistant="on"), StrategyOptions(transfer="augmented", assistant="on")],
)
def test_a_fresh_agent_proposes_what_the_old_one_would(settings, tmp_path):
    asked = replace(problem(n_trials=14), settings=settings, prior=Prior(others=(prior_search(),)))
    trials = run(asked, tmp_path).trials
    fresh = STRATEGIES["amc"].strategy(asked)
    assert tuple(fresh(trials[:-1], ()).widths.tolist()) == trials[-1].widths
    other = STRATEGIES["amc"].strategy(asked)
    other(trials[:5], ())
    other(trials[1:4], ())
    assert tuple(other(trials[:-1], ()).widths.tolist()) == trials[-1].widths


def test_the_assistant_helps(tmp_path):
    asked = problem(widths=(32,) * 4 + (64,) * 4, n_trials=40)
    alone = best_trial(run(asked, tmp_path, "a.jsonl").trials)
    assisted = best_trial(run(replace(asked, settings=StrategyOptions(assistant="on")), tmp_path, "b.jsonl").trials)
    assert assisted.objective > alone.objective


def test_actions_stay_in_the_box(tmp_path):
    asked = replace(
        problem(n_trials=12), settings=StrategyOptions(transfer="plain"), prior=Prior(others=(prior_search(),))
    )
    found = ratios(run(asked, tmp_path).trials, asked.space.full)
    assert (found >= asked.space.low / asked.space.full).all()
    assert (found <= 1).all()
