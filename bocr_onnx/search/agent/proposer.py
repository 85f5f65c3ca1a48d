"""From episodes to proposals: the schedule of noise, and the assistant's choice among rollouts."""

from __future__ import annotations

import numpy as np

from bocr_onnx.cost import Widths
from bocr_onnx.search.agent.memory import Memory
from bocr_onnx.search.agent.tasks import this_task
from bocr_onnx.search.problem import Floats, Problem
from bocr_onnx.search.racing import objectives
from bocr_onnx.search.starts import scatter
from bocr_onnx.search.surrogate import one_torch_thread
from bocr_onnx.search.trial import Proposal, Trial, scored

WARM_UP, SHORT_WARM_UP = 1 / 8, 1 / 32
"""Shares of the trials that are random: from scratch, and with history."""

NOISE, LOW_NOISE, DECAY = 0.5, 0.25, 0.95
N_ROLLOUTS = 24
"""Rollouts the assistant chooses from."""


class Amc:
    """The agent and what it has seen; a fresh one that sees the same trials learns the same."""

    def __init__(self, problem: Problem) -> None:
        settings = problem.settings
        self._problem = problem
        self._short = settings.transfer != "none" or settings.warm_up == "short"
        self._seen: tuple[Trial, ...] = ()
        self._memory = self._fresh()

    def _fresh(self) -> Memory:
        return Memory(self._problem, this_task(self._problem, augmented=self._problem.settings.transfer == "augmented"))

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
            return self._rollout(noise, rng)

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
        executed = [self._execute(row) for row in actions]
        if not assisted:
            return Proposal(executed[0], "agent")
        free = self._problem.space.free
        ratios = np.array([widths / self._problem.space.full for widths in executed])[:, free]
        return Proposal(executed[int(np.argmax(self._memory.predict(ratios)))], "agent, assisted")

    def _execute(self, actions: Floats) -> Widths:
        point = np.ones(len(self._problem.space.full))
        point[self._problem.space.free] = actions
        return self._problem.projection.execute(point)
