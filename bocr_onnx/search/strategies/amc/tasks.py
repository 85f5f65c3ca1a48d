"""A model as the agent sees it: one step per group that can be cut, from the first to the last.

The state of step t, with a_i the keep ratios, s_i the groups' shares of the MACs (summing to one), f_t the features:

    published    f_t (7), reduced = sum_{i<t} s_i (1 - a_i), rest = sum_{i>t} s_i, a_{t-1}
    augmented    f_t (12), target, reduced, what is still to be cut / rest, a_{t-1}

References:
    He et al., "AMC: AutoML for Model Compression", ECCV 2018, section 3.1 (published); Mu et al., IEEE TCAD 43(2),
    2024 (that states must mean the same in every network to be transferable; the features are this project's).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bocr_onnx.search.features import group_features, published_features
from bocr_onnx.search.prior import FEATURES, PriorSearch
from bocr_onnx.search.problem import Floats, Problem

SHARE = FEATURES.index("share")
"""Where `group_features` holds a group's share of the MACs, times n / 4."""


@dataclass(frozen=True, slots=True)
class Task:
    """One model at one budget.

    Attributes:
        features: `group_features` of the groups that can be cut, shape `(n_steps, 12)`.
        states: The features that the agent's state begins with, shape `(n_steps, 7 or 12)`.
        shares: Shares of the MACs, summing to one, shape `(n_steps,)`.
        low: Smallest keep ratios, shape `(n_steps,)`.
        target: Share that is kept.
    """

    features: Floats
    states: Floats
    shares: Floats
    low: Floats
    target: float

    @property
    def n_steps(self) -> int:
        """Returns how many groups can be cut."""
        return len(self.shares)

    @property
    def augmented(self) -> bool:
        """Returns whether states mean the same in every model."""
        return bool(self.states.shape[1] == self.features.shape[1])

    def state(self, step: int, ratios: Floats) -> Floats:
        """Returns the states of a step, shape `(n_policies, n_state)`.

        Args:
            step: From 0.
            ratios: Keep ratios, shape `(n_policies, n_steps)`; those from `step` on are not read.
        """
        n = len(ratios)
        reduced = (1 - ratios[:, :step]) @ self.shares[:step]
        rest = np.full(n, self.shares[step + 1 :].sum())
        last = ratios[:, step - 1] if step else np.ones(n)
        told = np.repeat(self.states[step][None], n, axis=0)
        if not self.augmented:
            return np.column_stack([told, reduced, rest, last])
        owed = (1 - self.target - reduced) / np.maximum(rest + self.shares[step], 1e-6)
        return np.column_stack([told, np.full(n, self.target), reduced, np.clip(owed, -1, 2), last])

    def path(self, ratios: Floats) -> Floats:
        """Returns the states of a whole policy, shape `(n_steps, n_state)`, for ratios `(n_steps,)`."""
        return np.concatenate([self.state(t, ratios[None]) for t in range(self.n_steps)])


def this_task(problem: Problem, *, augmented: bool) -> Task:
    """Returns the task of a search."""
    free, space = problem.space.free, problem.space
    features = group_features(problem)[free]
    states = features if augmented else published_features(problem)[free]
    target = min(problem.projection.budget.shares.values())
    return Task(features, states, _shares(features), (space.low / space.full)[free], target)


def prior_task(prior: PriorSearch, *, augmented: bool) -> tuple[Task, Floats]:
    """Returns the task of an earlier search and the keep ratios of its trials, shape `(n_trials, n_steps)`."""
    ratios = np.array(prior.ratios)
    free = np.flatnonzero((ratios < 1).any(axis=0))
    features = np.array(prior.features)[free]
    states = features if augmented else np.array(prior.published)[free]
    return Task(features, states, _shares(features), ratios[:, free].min(axis=0), prior.budget), ratios[:, free]


def _shares(features: Floats) -> Floats:
    shares = np.maximum(features[:, SHARE], 1e-9)
    return np.asarray(shares / shares.sum())
