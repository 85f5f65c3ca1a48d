"""What an agent remembers and learns from: episodes of this task and of earlier ones, real and predicted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bocr_onnx.search.prior import PriorSearch
from bocr_onnx.search.problem import Floats, Problem
from bocr_onnx.search.strategies.amc.assistant import Assistant, fit_assistant, policy_features
from bocr_onnx.search.strategies.amc.ddpg import BATCH, REPLAY_PER_STEP, Agent, Transitions, join, transitions
from bocr_onnx.search.strategies.amc.tasks import Task, prior_task

MIN_EPISODES = 8
"""Evaluations of this task and earlier ones that are needed before the assistant is trusted."""

N_SYNTHETIC = 16
"""Predicted episodes in the minds of the agent."""

AVERAGE = 0.95
"""Decay of the moving average that is taken off the rewards."""


class Memory:
    """Agent, episodes and assistant of one search.

    Args:
        problem: The search.
        task: It, as the agent sees it.
        execute: From actions, shape `(n, n_steps)`, to those of the policies that are executed for them.
    """

    def __init__(self, problem: Problem, task: Task, execute: Callable[[Floats], Floats]) -> None:
        self._task = task
        self._execute = execute
        self._seed = problem.seed
        self._agent = Agent(task.states.shape[1] + (4 if task.augmented else 3), problem.seed)
        self._ratios: list[Floats] = []
        self._rewards: Floats = np.zeros(0)
        self._assistant: Assistant | None = None
        self._assisted = problem.settings.assistant == "on"
        self._pool: list[Transitions] = []
        self._known: list[tuple[Floats, Floats]] = []
        if problem.settings.transfer != "none":
            self._recall(problem.prior.others, problem.settings.transfer)

    @property
    def can_predict(self) -> bool:
        """Returns whether the assistant has learned enough."""
        return self._assistant is not None

    def predict(self, ratios: Floats) -> Floats:
        """Returns predicted rewards, shape `(n,)`, for ratios `(n, n_steps)`."""
        assert self._assistant is not None
        return self._assistant.predict(policy_features(self._task, ratios))

    def roll(self, n: int, noise: float, rng: np.random.Generator) -> Floats:
        """Returns the actions of episodes, shape `(n, n_steps)`, with truncated-normal noise."""
        from scipy.stats import truncnorm

        ratios = np.ones((n, self._task.n_steps))
        for step in range(self._task.n_steps):
            wish, low = self._agent.act(self._task.state(step, ratios)), self._task.low[step]
            below, above = (low - wish) / noise, (1 - wish) / noise
            ratios[:, step] = truncnorm.rvs(below, above, loc=wish, scale=noise, size=n, random_state=rng)
        return ratios

    def add(self, ratios: Floats, objectives: Floats, *, learning: bool) -> None:
        """Remembers an executed policy; the agent learns one batch for each step of a policy.

        Args:
            ratios: Ratios of the groups that can be cut, shape `(n_steps,)`.
            objectives: Objectives of all policies added so far, the last one being this one's.
            learning: Whether the warm-up is over.
        """
        self._ratios.append(ratios)
        self._rewards = objectives
        if not learning or not self._task.n_steps:
            return
        rng = np.random.default_rng([self._seed, 1, len(self._ratios)])
        kept = self._ratios[-REPLAY_PER_STEP:]
        rewards = self._told(objectives)[-len(kept) :]
        own = [transitions(self._task.path(r), r, float(v)) for r, v in zip(kept, rewards, strict=True)]
        real = join([*self._pool, *own])
        synthetic = self._imagine(rng) if self._assisted else None
        for _ in range(self._task.n_steps):
            self._agent.learn(_batch(real, synthetic, rng))

    def _imagine(self, rng: np.random.Generator) -> Transitions | None:
        """Returns predicted episodes, or None while the assistant knows too little; fits it first."""
        if len(self._ratios) + sum(len(r) for _, r in self._known) < MIN_EPISODES:
            return None
        own = policy_features(self._task, np.array(self._ratios))
        features = np.concatenate([own, *(f for f, _ in self._known)])
        rewards = np.concatenate([_standard(self._rewards), *(r for _, r in self._known)])
        self._assistant = fit_assistant(features, rewards, rng)
        ratios = self._execute(self.roll(N_SYNTHETIC, 0.2, rng))
        guessed = self.predict(ratios)
        if not self._task.augmented:  # in the units that the agent is told
            guessed = guessed * self._rewards.std() + self._rewards.mean() - _average(self._rewards)
        return join(
            [transitions(self._task.path(r), r, float(v)) for r, v in zip(ratios, guessed, strict=True)],
        )

    def _told(self, rewards: Floats) -> Floats:
        """Returns rewards as the agent is told them: standardised by task, or minus their moving average."""
        return _standard(rewards) if self._task.augmented else _centred(rewards)

    def _recall(self, prior: tuple[PriorSearch, ...], transfer: str) -> None:
        """Learns from earlier searches: the newest one (plain), or all, which stay in memory (augmented)."""
        for i, search in enumerate(prior if transfer == "augmented" else prior[:1]):
            task, ratios = prior_task(search, augmented=transfer == "augmented")
            if not task.n_steps:
                continue
            rewards = np.array(search.rewards)
            told = self._told(rewards)
            episodes = [transitions(task.path(r), r, float(v)) for r, v in zip(ratios, told, strict=True)]
            self._known.append((policy_features(task, ratios), _standard(rewards)))
            whole, rng = join(episodes), np.random.default_rng([self._seed, 2, i])
            for _ in range(len(episodes) * task.n_steps):
                self._agent.learn(_batch(whole, None, rng))
            if transfer == "augmented":
                self._pool += episodes


def _batch(real: Transitions, synthetic: Transitions | None, rng: np.random.Generator) -> Transitions:
    """Returns a batch, at most half of it synthetic."""
    n = BATCH if synthetic is None else BATCH // 2
    drawn = real.take(rng.integers(len(real.state), size=n))
    if synthetic is None:
        return drawn
    return join([drawn, synthetic.take(rng.integers(len(synthetic.state), size=BATCH - n))])


def _standard(rewards: Floats) -> Floats:
    return np.asarray((rewards - rewards.mean()) / max(float(rewards.std()), 1e-6))


def _centred(rewards: Floats) -> Floats:
    """Returns rewards minus their moving average over the episodes."""
    return rewards - _average(rewards)


def _average(rewards: Floats) -> float:
    average = float(rewards[0]) if len(rewards) else 0.0
    for reward in rewards:
        average = AVERAGE * average + (1 - AVERAGE) * float(reward)
    return average
