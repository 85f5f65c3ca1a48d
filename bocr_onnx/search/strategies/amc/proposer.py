"""From episodes to proposals: the schedule of noise, and the assistant's choice among rollouts."""

from __future__ import annotations

import numpy as np

from bocr_onnx.cost import Widths
from bocr_onnx.search.problem import Floats, Problem
from bocr_onnx.search.proposals.starts import scatter
from bocr_onnx.search.racing import objectives
from bocr_onnx.search.strategies.amc.memory import Memory
from bocr_onnx.search.strategies.amc.tasks import this_task
from bocr_onnx.search.torch_thread import one_torch_thread
from bocr_onnx.search.trial import Proposal, Trial, scored

WARM_UP, SHORT_WARM_UP = 1 / 8, 1 / 32
"""Shares of the trials that are random: from scratch, and with history."""

NOISE, LOW_NOISE, MIN_NOISE, DECAY = 0.5, 0.25, 1e-4, 0.95
N_ROLLOUTS = 24
"""Rollouts the assistant chooses from."""


class Amc:
    """The agent and what it has seen; a fresh one that sees the same trials learns the same."""

    def __init__(self, problem: Problem) -> None:
        settings = problem.settings
        self._problem = problem
        self._short = settings.transfer != "none" or settings.warm_up == "short"
        self._seen: tuple[Trial, ...] = ()
        with one_torch_thread():
            self._memory = self._fresh()

    def _fresh(self) -> Memory:
        task = this_task(self._problem, augmented=self._problem.settings.transfer == "augmented")
        return Memory(self._problem, task, self._executed)

    def propose(self, trials: tuple[Trial, ...], pending: tuple[Widths, ...]) -> Proposal | None:
        """Proposes the next policy."""
        number = len(trials) + len(pending)
        rng = self._problem.rng(number)
        warm_up = max(2, round((SHORT_WARM_UP if self._short else WARM_UP) * self._problem.n_trials))
        with one_torch_thread():
            self._catch_up(trials, warm_up)
            if number < warm_up or not self._problem.space.free.size:
                return scatter(self._problem, rng)
            noise = (LOW_NOISE if self._short else NOISE) * DECAY ** (number - warm_up)
            return self._rollout(max(noise, MIN_NOISE), rng)

    def _catch_up(self, trials: tuple[Trial, ...], warm_up: int) -> None:
        """Learns from the trials that are new, one by one, as if each had just ended."""
        if self._seen != trials[: len(self._seen)]:
            self._seen, self._memory = (), self._fresh()
        for n in range(len(self._seen) + 1, len(trials) + 1):
            if scored((trials[n - 1],)):
                known = scored(trials[:n])
                self._memory.add(self._actions(trials[n - 1]), objectives(known), learning=n > warm_up)
        self._seen = trials

    def _actions(self, trial: Trial) -> Floats:
        return (np.array(trial.widths) / self._problem.space.full)[self._problem.space.free]

    def _rollout(self, noise: float, rng: np.random.Generator) -> Proposal:
        assisted = self._problem.settings.assistant == "on" and self._memory.can_predict
        actions = self._memory.roll(N_ROLLOUTS if assisted else 1, noise, rng)
        if not assisted:
            return Proposal(self._widths(actions[0]), "agent")
        best = int(np.argmax(self._memory.predict(self._executed(actions))))
        return Proposal(self._widths(actions[best]), "agent, assisted")

    def _executed(self, actions: Floats) -> Floats:
        """Returns the actions of the executed policies, shape as `actions`."""
        return np.array([self._widths(row) / self._problem.space.full for row in actions])[:, self._problem.space.free]

    def _widths(self, actions: Floats) -> Widths:
        point = np.ones(len(self._problem.space.full))
        point[self._problem.space.free] = actions
        return self._problem.projection.execute(point)
