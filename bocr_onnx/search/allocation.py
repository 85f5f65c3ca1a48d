"""The policy whose errors, by the curves alone, are smallest within a budget.

Greedy first: from full width, the group whose next step costs the least error per unit of budget gives it up, until the
budget is met. Where steps are coarse, the last one overshoots, and time that falls in steps misleads each one; so pairs
of groups then exchange channels, as long as the sum of errors falls (2-opt). Costs need not be additive: every exchange
is checked against the budget as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bocr_onnx.cost import Widths
from bocr_onnx.search.problem import Floats, Problem
from bocr_onnx.search.space import SearchSpace

STEPS = (1, 2, 3, 4, 8, 16, 32)
"""By how many allowed widths a group may move at once: far enough to leave a plateau of time."""

DOWN = tuple(-step for step in STEPS)

SHORTLIST = 256
"""Exchanges that are checked at once, those that save the most error by what single moves cost."""

INTERPLAY = 0.5
"""Share of what a move costs by which the other move of an exchange may change that."""

ENOUGH = 1e-9
"""An exchange must save this share of the errors."""

MAX_EXCHANGES = 1_000


def allocate(problem: Problem, exponent: float = 1.0) -> Widths:
    """Returns the widths of the best allocation on the error curves, shape `(n_groups,)`, within the budget.

    Args:
        problem: The search.
        exponent: The curves are raised to it: below one flattens them, above sharpens.
    """
    curves = [np.maximum(c, 0) ** exponent for c in problem.curves]
    widths = _greedy(problem, curves)
    for _ in range(MAX_EXCHANGES):
        better = _exchange(problem, curves, widths)
        if better is None:
            break
        widths = better
    return widths


def _greedy(problem: Problem, curves: list[Floats]) -> Widths:
    space, cost, budget = problem.space, problem.projection.cost, problem.projection.budget
    widths = space.full.copy()
    used = budget.use(cost, widths[None])[0]
    while used > 1:
        moves = _moves(space, curves, widths, DOWN)
        if not len(moves.group):
            break
        saved = used - budget.use(cost, moves.applied(widths))
        best = int(np.argmin(moves.error / np.maximum(saved, 1e-12)))
        widths = moves.applied(widths)[best]
        used = budget.use(cost, widths[None])[0]
    return widths


def _exchange(problem: Problem, curves: list[Floats], widths: Widths) -> Widths | None:
    """Returns the policy one exchange away that saves the most error within the budget, or None where none does.

    An exchange moves two groups, or one alone. What it costs is estimated as the sum of both moves, which decides only
    what is checked.
    """
    cost, budget = problem.projection.cost, problem.projection.budget
    moves = _moves(problem.space, curves, widths, DOWN + STEPS)
    if not len(moves.group):
        return None
    used = budget.use(cost, widths[None])[0]
    more = budget.use(cost, moves.applied(widths)) - used
    error = np.append(moves.error, 0.0)
    more, group = np.append(more, 0.0), np.append(moves.group, -1)
    total, room = error[:, None] + error, more[:, None] + more
    least = ENOUGH * max(sum(float(c[w]) for c, w in zip(curves, widths, strict=True)), 1e-12)
    promising = (total < -least) & (group[:, None] != group) & (room <= 1 - used + INTERPLAY * np.abs(more)[:, None])
    first, second = np.nonzero(np.triu(promising))
    order = np.argsort(total[first, second], kind="stable")[:SHORTLIST]
    if not len(order):
        return None
    tried = np.repeat(widths[None], len(order), axis=0)
    rows = np.arange(len(order))
    for side in (first[order], second[order]):
        moved = side < len(moves.group)
        tried[rows[moved], moves.group[side[moved]]] = moves.to[side[moved]]
    fitting = np.flatnonzero(budget.use(cost, tried) <= 1)
    return tried[fitting[0]] if len(fitting) else None


@dataclass(frozen=True, slots=True)
class _Moves:
    """Single moves: a group, the width it moves to, and the error that adds, each of shape `(n_moves,)`."""

    group: npt.NDArray[np.int64]
    to: npt.NDArray[np.int64]
    error: Floats

    def applied(self, widths: Widths) -> Widths:
        """Returns the policies after each move, shape `(n_moves, n_groups)`."""
        made = np.repeat(widths[None], len(self.group), axis=0)
        made[np.arange(len(made)), self.group] = self.to
        return made


def _moves(space: SearchSpace, curves: list[Floats], widths: Widths, steps: tuple[int, ...]) -> _Moves:
    found = []
    for group in map(int, space.free):
        choice, curve = space.choices[group], curves[group]
        at = int(np.searchsorted(choice, widths[group]))
        found += [(group, to, curve[to] - curve[widths[group]])
                  for step in steps if 0 <= at + step < len(choice) for to in (int(choice[at + step]),)]  # fmt: skip
    groups, to, error = zip(*found, strict=True) if found else ((), (), ())
    return _Moves(np.array(groups, dtype=np.int64), np.array(to, dtype=np.int64), np.array(error, dtype=np.float64))
