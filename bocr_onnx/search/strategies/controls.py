"""Controls: what a search has to beat."""

from __future__ import annotations

import numpy as np

from bocr_onnx.cost import Widths
from bocr_onnx.search.allocation import allocate
from bocr_onnx.search.problem import Problem
from bocr_onnx.search.proposals.starts import scatter
from bocr_onnx.search.strategies.records import Propose
from bocr_onnx.search.trial import Proposal, Trial


def uniform(problem: Problem) -> Propose:
    """Proposes one policy: the same keep ratio everywhere."""
    return once(problem.projection.execute(np.full(len(problem.space.full), 0.5)), "uniform")


def sensitivity(problem: Problem) -> Propose:
    """Proposes one policy: the allocation on the error curves."""
    return once(allocate(problem), "sensitivity")


def once(widths: Widths, origin: str) -> Propose:
    """Returns a proposer of one policy, shape `(n_groups,)`."""

    def propose(trials: tuple[Trial, ...], pending: tuple[Widths, ...]) -> Proposal | None:
        return None if trials or pending else Proposal(widths, origin)

    return propose


def random(problem: Problem) -> Propose:
    """Proposes independent uniform keep ratios, projected onto the budget."""

    def propose(trials: tuple[Trial, ...], pending: tuple[Widths, ...]) -> Proposal | None:
        return scatter(problem, problem.rng(len(trials) + len(pending)))

    return propose
