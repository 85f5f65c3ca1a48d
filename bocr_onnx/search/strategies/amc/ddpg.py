"""Deep deterministic policy gradient with the published networks and rates.

    critic   Q(s, a) <- r + Q'(s', mu'(s'))        discount 1, targets move by tau = 0.01
    actor    mu      <- argmax Q(s, mu(s))         mu in [0, 1]: the keep ratio

The reward of a policy is copied to each of its steps.

References:
    Lillicrap et al., "Continuous control with deep reinforcement learning", ICLR 2016; He et al., "AMC: AutoML for
    Model Compression", ECCV 2018, section 3.2 and the authors' code (sizes and rates).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bocr_onnx.search.problem import Floats

HIDDEN = 300
ACTOR_RATE, CRITIC_RATE, TAU = 1e-4, 1e-3, 0.01
BATCH = 64
REPLAY_PER_STEP = 100
"""Transitions that are remembered, for each step of a policy."""


class _Critic(nn.Module):
    """Q: state and action each through a layer of their own, added."""

    def __init__(self, n_state: int) -> None:
        super().__init__()
        self.state = nn.Linear(n_state, HIDDEN)
        self.action = nn.Linear(1, HIDDEN)
        self.rest = nn.Sequential(nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        """Returns values, shape `(n, 1)`, for states `(n, n_state)` and actions `(n, 1)`."""
        value: Tensor = self.rest(self.state(state) + self.action(action))
        return value


@dataclass(frozen=True, slots=True)
class Transitions:
    """Steps of policies, float32.

    Attributes:
        state: Shape `(n, n_state)`.
        action: Keep ratios, shape `(n, 1)`.
        reward: Shape `(n, 1)`.
        following: State of the next step, shape `(n, n_state)`.
        more: One where there is a next step, else zero, shape `(n, 1)`.
    """

    state: Tensor
    action: Tensor
    reward: Tensor
    following: Tensor
    more: Tensor

    def take(self, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Transitions:
        """Returns some of them."""
        at = torch.from_numpy(rows)
        return Transitions(self.state[at], self.action[at], self.reward[at], self.following[at], self.more[at])


def transitions(path: Floats, ratios: Floats, reward: float) -> Transitions:
    """Returns the steps of one policy.

    Args:
        path: Its states, shape `(n_steps, n_state)`.
        ratios: Its actions, shape `(n_steps,)`.
        reward: Reward of each step.
    """
    state = torch.from_numpy(path).float()
    action = torch.from_numpy(np.ascontiguousarray(ratios)).float()[:, None]
    more = torch.ones(len(path), 1)
    more[-1] = 0
    return Transitions(state, action, torch.full_like(action, reward), torch.cat([state[1:], state[-1:]]), more)


def join(parts: list[Transitions]) -> Transitions:
    """Returns the steps of several policies."""
    return Transitions(
        torch.cat([p.state for p in parts]),
        torch.cat([p.action for p in parts]),
        torch.cat([p.reward for p in parts]),
        torch.cat([p.following for p in parts]),
        torch.cat([p.more for p in parts]),
    )


class Agent:
    """Actor, critic and their slow copies.

    Args:
        n_state: Length of a state.
        seed: Seed for the initial weights.
    """

    def __init__(self, n_state: int, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers = (nn.Linear(n_state, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU())
            self._actor = nn.Sequential(*layers, nn.Linear(HIDDEN, 1), nn.Sigmoid())
            self._critic = _Critic(n_state)
        self._slow_actor, self._slow_critic = copy.deepcopy(self._actor), copy.deepcopy(self._critic)
        self._actor_step = torch.optim.Adam(self._actor.parameters(), lr=ACTOR_RATE)
        self._critic_step = torch.optim.Adam(self._critic.parameters(), lr=CRITIC_RATE)

    def act(self, state: Floats) -> Floats:
        """Returns keep ratios, shape `(n,)`, in [0, 1], for states `(n, n_state)`."""
        with torch.no_grad():
            return np.asarray(self._actor(torch.from_numpy(state).float()).squeeze(-1).double().numpy())

    def learn(self, batch: Transitions) -> None:
        """Takes one step of critic and actor, and moves the slow copies."""
        with torch.no_grad():
            following = self._slow_critic(batch.following, self._slow_actor(batch.following))
            goal = batch.reward + batch.more * following
        loss = nn.functional.mse_loss(self._critic(batch.state, batch.action), goal)
        _descend(self._critic_step, loss)
        _descend(self._actor_step, -self._critic(batch.state, self._actor(batch.state)).mean())
        for slow, fast in ((self._slow_actor, self._actor), (self._slow_critic, self._critic)):
            for there, here in zip(slow.parameters(), fast.parameters(), strict=True):
                there.data.lerp_(here.data, TAU)


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    optimizer.step()
