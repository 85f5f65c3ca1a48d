"""Controls: what a search has to beat."""

from __future__ import annotations

import numpy as np

from bocr_onnx.cost import Widths
from bocr_onnx.search.problem import Problem, allocate
from bocr_onnx.search.trial import Trial


def uniform(problem: Problem, trials: tuple[Trial, ...]) -> tuple[Widths, str] | None:
    """Proposes one policy: the same keep ratio everywhere."""
    if trials:
        return None
    return problem.projection.execute(np.full(len(problem.space.full), 0.5)), "uniform"


def sensitivity(problem: Problem, trials: tuple[Trial, ...]) -> tuple[Widths, str] | None:
    """Proposes one policy: the greedy allocation on the error curves."""
    if trials:
        return None
    return problem.projection.execute(allocate(problem) / problem.space.full), "sensitivity"


def random(problem: Problem, trials: tuple[Trial, ...]) -> tuple[Widths, str] | None:
    """Proposes independent uniform keep ratios, projected onto the budget."""
    space = problem.space
    low = space.low / space.full
    rng = problem.rng(len(trials))
    return problem.projection.execute(low + (1 - low) * rng.random(len(low))), "random"
