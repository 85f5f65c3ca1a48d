"""Projection onto the budget: from any keep ratios to the policy that is executed.

All ratios are shifted in logit space by one amount, found by bisection, until the budget is met: two-sided and
independent of the order of the layers. The result is rounded to the channel grid and repaired by single steps, up
while they fit and down while they must, each time where the policy is furthest from what was asked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from bocr_onnx.cost import CostModel, Widths
from bocr_onnx.search.budget import Budget
from bocr_onnx.search.space import Point, SearchSpace

SLACK = 0.005
"""A policy within this share below the budget is on it."""

_EDGE = 1e-4
_BISECTIONS = 26


@dataclass(frozen=True, slots=True)
class Projection:
    """Space, cost and budget together.

    Attributes:
        space: Which policies there are.
        cost: What they cost.
        budget: What they may cost.
    """

    space: SearchSpace
    cost: CostModel
    budget: Budget

    def shift(self, points: Point) -> Point:
        """Returns points shifted onto the budget, before rounding, shape `(n_policies, n_groups)`.

        Args:
            points: Keep ratios, shape `(n_policies, n_groups)`.
        """
        low = self.space.low / self.space.full
        logits = logit(np.clip(points, _EDGE, 1 - _EDGE))
        below, above = np.full((len(points), 1), -20.0), np.full((len(points), 1), 20.0)
        ratios = points
        for _ in range(_BISECTIONS):
            middle = (below + above) / 2
            ratios = np.clip(expit(logits + middle), low, 1)
            over = self.budget.use(self.cost, ratios * self.space.full)[:, None] > 1
            above, below = np.where(over, middle, above), np.where(over, below, middle)
        return np.asarray(np.clip(expit(logits + below), low, 1))

    def execute(self, point: Point) -> Widths:
        """Returns the widths that are executed for a point, shape `(n_groups,)`, within the budget.

        Args:
            point: Keep ratios, shape `(n_groups,)`.

        Example:
            A model of one group of 8 channels whose cost is linear in its width:

            >>> from bocr_onnx.cost import Terms
            >>> terms = Terms(np.array([1.0]), np.array([[[0.0, 1.0], [1.0, 0.0]]]))
            >>> cost = CostModel(np.array([8]), terms, terms, terms, 0)
            >>> space = SearchSpace(("g",), np.array([8]), (np.arange(1, 9),))
            >>> Projection(space, cost, Budget({"flops": 0.5})).execute(np.array([0.9])).tolist()
            [4]
        """
        wish = self.shift(point[None])[0]
        widths = self.space.snap(wish[None])[0]
        return self._repair(widths, wish * self.space.full)

    def _repair(self, widths: Widths, wish: Point) -> Widths:
        while self.budget.use(self.cost, widths[None])[0] > 1:
            moves = self._moves(widths, -1)
            if not len(moves):
                return self.space.low
            widths = moves[int(np.argmin(self._gap(moves, wish)))]
        while True:
            moves = self._moves(widths, 1)
            fitting = moves[self.budget.use(self.cost, moves) <= 1] if len(moves) else moves
            if not len(fitting):
                return widths
            best = fitting[int(np.argmin(self._gap(fitting, wish)))]
            on_budget = self.budget.use(self.cost, widths[None])[0] >= 1 - SLACK
            if on_budget and self._gap(best[None], wish)[0] >= self._gap(widths[None], wish)[0]:
                return widths
            widths = best

    def _moves(self, widths: Widths, direction: int) -> Widths:
        """Returns the policies one step away, shape `(n_moves, n_groups)`."""
        moves = []
        for group in self.space.free:
            to = self.space.step(int(group), int(widths[group]), direction)
            if to is not None:
                moves.append(widths.copy())
                moves[-1][group] = to
        return np.array(moves, dtype=np.int64).reshape(-1, len(widths))

    def _gap(self, widths: Widths, wish: Point) -> Point:
        """Returns the squared relative distance from what was asked, shape `(n_policies,)`."""
        return np.asarray(np.sum(((widths - wish) / self.space.full) ** 2, axis=1))
