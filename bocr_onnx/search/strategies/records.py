"""What a strategy is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from bocr_onnx.cost import Widths
from bocr_onnx.search.problem import Problem
from bocr_onnx.search.trial import Proposal, Trial

Propose = Callable[[tuple[Trial, ...], tuple[Widths, ...]], Proposal | None]
"""From the trials that ended and the widths that are pending to what is tried next; None when there is nothing more."""


class Strategy(Protocol):
    """Makes a proposer for a problem.

    A proposal depends on the problem, the trials and what is pending only, so a search that is continued proposes
    what an uninterrupted one would have. A proposer may keep what it has learned from the trials it has seen, as long
    as a fresh one would learn the same.
    """

    def __call__(self, problem: Problem) -> Propose:
        """Returns the proposer."""
        ...


@dataclass(frozen=True, slots=True)
class Registered:
    """A strategy and what a run must know of it.

    Attributes:
        strategy: It.
        min_trials: Trials below which it is not itself.
        stops: Whether it may stop once nothing is gained any more; others follow a schedule of all their trials.
        scored: Whether it needs scores; otherwise it names one policy.
    """

    strategy: Strategy
    min_trials: int = 1
    stops: bool = False
    scored: bool = True
