"""The assistant: a small ensemble that predicts the reward of a policy, so that most rollouts need not be evaluated.

Everything in this decision process but the final reward is free and deterministic; a predictor of the reward is
therefore a complete simulator. Features of a policy mean the same in every model:

    log of an error guessed from the groups' features, share-weighted mean keep ratio in six bins of depth, mean of
    (1 - a)^2 by share, smallest keep ratio, spread of the keep ratios, target

Each member is a ridge regression on a bootstrap sample; what they disagree on is the doubt.

References:
    Mu et al., "Boosting the Convergence of Reinforcement Learning-based Auto-pruning Using Historical Data", IEEE
    TCAD 43(2), 2024 (assistant learning; its details are not public, the predictor is this project's).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bocr_onnx.search.prior import FEATURES
from bocr_onnx.search.problem import Floats
from bocr_onnx.search.strategies.amc.tasks import Task

N_MEMBERS, N_BINS = 7, 6
RIDGE = 0.3
KAPPA = 0.5
"""A prediction counts as its mean minus this many standard deviations."""

SENSITIVITY, QUARTER, THREE_QUARTERS = map(FEATURES.index, ("sensitivity", "quarter", "three quarters"))


@dataclass(frozen=True, slots=True)
class Assistant:
    """A fitted ensemble.

    Attributes:
        mean: Mean of the features, shape `(n_features,)`.
        scale: Scale of the features.
        weights: Weights of the members, last one the constant, shape `(n_members, n_features + 1)`.
    """

    mean: Floats
    scale: Floats
    weights: Floats

    def predict(self, features: Floats) -> Floats:
        """Returns cautious predictions, shape `(n_policies,)`, for features `(n_policies, n_features)`."""
        columns = np.column_stack([(features - self.mean) / self.scale, np.ones(len(features))])
        guesses = columns @ self.weights.T
        return np.asarray(guesses.mean(axis=1) - KAPPA * guesses.std(axis=1))


def policy_features(task: Task, ratios: Floats) -> Floats:
    """Returns features of policies, shape `(n_policies, 11)`, for ratios `(n_policies, n_steps)`."""
    depth = np.minimum((np.arange(task.n_steps) * N_BINS) // max(task.n_steps, 1), N_BINS - 1)
    bins = [_weighted(ratios, task.shares * (depth == b)) for b in range(N_BINS)]
    missing = 1 - ratios
    return np.column_stack(
        [
            np.log(_error(task, ratios) + 1e-9),
            *bins,
            missing**2 @ task.shares,
            ratios.min(axis=1),
            ratios.std(axis=1),
            np.full(len(ratios), task.target),
        ]
    )


def fit_assistant(features: Floats, rewards: Floats, rng: np.random.Generator) -> Assistant:
    """Returns an ensemble fitted to rewards that are standardised by task.

    Args:
        features: Shape `(n, n_features)`.
        rewards: Shape `(n,)`.
        rng: Draws the bootstrap samples.
    """
    mean, scale = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-6)
    columns = np.column_stack([(features - mean) / scale, np.ones(len(features))])
    penalty = RIDGE * np.eye(columns.shape[1])
    penalty[-1, -1] = 1e-6
    weights = []
    for _ in range(N_MEMBERS):
        rows = rng.integers(len(columns), size=len(columns))
        X, y = columns[rows], rewards[rows]
        weights.append(np.linalg.solve(X.T @ X + penalty, X.T @ y))
    return Assistant(mean, scale, np.array(weights))


def _weighted(ratios: Floats, weights: Floats) -> Floats:
    total = float(weights.sum())
    return np.asarray(ratios @ weights / total) if total > 0 else np.ones(len(ratios))


def _error(task: Task, ratios: Floats) -> Floats:
    """Returns a guess at the error from the groups' features, monotone in it within a model, shape `(n_policies,)`."""
    total = np.zeros(len(ratios))
    for i, row in enumerate(task.features):
        curve = np.interp(ratios[:, i], [0, 0.25, 0.75, 1], [1, row[QUARTER], row[THREE_QUARTERS], 0])
        total += np.exp(2 * row[SENSITIVITY]) * curve
    return total
