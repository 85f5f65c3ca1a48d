"""The policies a search begins with, all on the budget."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bocr_onnx.cost import LATENCY, Widths
from bocr_onnx.search.allocation import allocate
from bocr_onnx.search.budget import Budget
from bocr_onnx.search.problem import Problem
from bocr_onnx.search.proposals.hints import hints
from bocr_onnx.search.trial import Proposal

BISECTIONS = 7
SHARPNESS = {1.0: "sensitivity", 0.7: "sensitivity, flatter", 1.5: "sensitivity, sharper"}


def start_policies(problem: Problem) -> list[Proposal]:
    """Returns the first policies, none twice: allocations on the error curves, what history suggests, and uniform.

    They take at most half of the trials, and at least one.
    """
    space, projection = problem.space, problem.projection
    found = [Proposal(allocate(problem), SHARPNESS[1.0])]
    if LATENCY.name in projection.budget.shares:
        found.append(Proposal(allocate_by_macs(problem), "sensitivity, by MACs"))
    found += [Proposal(projection.execute(point), "history") for point in hints(problem)]
    found += [Proposal(allocate(problem, e), text) for e, text in SHARPNESS.items() if e != 1.0]
    found.append(Proposal(projection.execute(np.full(len(space.full), 0.5)), "uniform"))
    starts: list[Proposal] = []
    for proposal in found[: max(1, problem.n_trials // 2)]:
        if not any(np.array_equal(proposal.widths, known.widths) for known in starts):
            starts.append(proposal)
    return starts


def allocate_by_macs(problem: Problem) -> Widths:
    """Returns the allocation on the error curves for a share of the MACs that just meets the budget.

    Steps of latency are coarse, and an allocation that weighs errors by them alone may be far from the best one.
    """
    budget, cost, best = problem.projection.budget, problem.projection.cost, problem.space.low
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        share = (low + high) / 2
        projection = replace(problem.projection, budget=Budget({"flops": share}))
        widths = allocate(replace(problem, projection=projection))
        if budget.use(cost, widths[None])[0] <= 1:
            low, best = share, widths
        else:
            high = share
    return best


def scatter(problem: Problem, rng: np.random.Generator) -> Proposal:
    """Returns independent uniform keep ratios, projected onto the budget."""
    low = problem.space.low / problem.space.full
    return Proposal(problem.projection.execute(low + (1 - low) * rng.random(len(low))), "random")
