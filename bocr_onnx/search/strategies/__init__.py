"""Search strategies by name. A strategy is a pure function from what was tried to what is tried next."""

from __future__ import annotations

from typing import Protocol

from bocr_onnx.cost import Widths
from bocr_onnx.errors import UsageError, did_you_mean
from bocr_onnx.search.problem import Problem
from bocr_onnx.search.strategies import bocr, controls
from bocr_onnx.search.trial import Trial


class Strategy(Protocol):
    """Proposes the next policy.

    The proposal depends on the problem and the trials only, so a search that is continued proposes what an
    uninterrupted one would have.
    """

    def __call__(self, problem: Problem, trials: tuple[Trial, ...]) -> tuple[Widths, str] | None:
        """Returns the widths to try, shape `(n_groups,)`, and what proposed them; None when there is no more."""
        ...


STRATEGIES: dict[str, Strategy] = {
    "bocr": bocr.propose,
    "random": controls.random,
    "sensitivity": controls.sensitivity,
    "uniform": controls.uniform,
}

ONE_POLICY = frozenset({"uniform", "sensitivity"})
"""Strategies that name one policy and need no score for it."""


def find_strategy(name: str) -> Strategy:
    """Returns a strategy by name.

    Raises:
        UsageError: There is none of that name.
    """
    if name not in STRATEGIES:
        raise UsageError(f"--search must be a known strategy, got {name!r}", hint=did_you_mean(name, STRATEGIES))
    return STRATEGIES[name]


__all__ = ["ONE_POLICY", "STRATEGIES", "Strategy", "find_strategy"]
