"""What a strategy is given: the space, what the groups look like, the budget to meet, and what is known already."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bocr_onnx.cost import Widths
from bocr_onnx.options import StrategyOptions
from bocr_onnx.search.past import Past
from bocr_onnx.search.project import Projection
from bocr_onnx.search.space import Point, SearchSpace
from bocr_onnx.search.traits import GroupTraits

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Problem:
    """One search.

    Attributes:
        projection: Space, cost and budget.
        curves: For every group its error at width w, shape `(n_channels + 1,)`; from the sensitivity scan.
        n_trials: Evaluations in all.
        seed: Seed for all random draws.
        traits: What the operators that read each group look like.
        settings: Options of particular strategies.
        past: What is known from earlier searches.
    """

    projection: Projection
    curves: tuple[Floats, ...]
    n_trials: int
    seed: int
    traits: tuple[GroupTraits, ...]
    settings: StrategyOptions = field(default_factory=StrategyOptions)
    past: Past = field(default_factory=Past)

    @property
    def space(self) -> SearchSpace:
        """Returns the space."""
        return self.projection.space

    def proxy(self, ratios: Point) -> Floats:
        """Returns the predicted error of policies, shape `(n_policies,)`, for ratios `(n_policies, n_groups)`."""
        total = np.zeros(len(ratios))
        for i, curve in enumerate(self.curves):
            widths = np.clip(ratios[:, i] * self.space.full[i], 0, self.space.full[i])
            total += np.interp(widths, np.arange(len(curve)), curve)
        return total

    def rng(self, number: int) -> np.random.Generator:
        """Returns the generator of trial `number`, the same in every process."""
        return np.random.default_rng([self.seed, number])


def allocate(problem: Problem, exponent: float = 1.0) -> Widths:
    """Returns the widths of the greedy allocation on the error curves, shape `(n_groups,)`, within the budget.

    From full width, the group whose next step costs the least error per unit of budget gives it up, until the
    budget is met.

    Args:
        problem: The search.
        exponent: The curves are raised to it: below one flattens them, above sharpens.
    """
    space, cost, budget = problem.space, problem.projection.cost, problem.projection.budget
    curves = [np.maximum(c, 0) ** exponent for c in problem.curves]
    widths = space.full.copy()
    used = budget.use(cost, widths[None])[0]
    while used > 1:
        moves: list[tuple[float, int, int]] = []
        candidates = [(int(g), to) for g in space.free if (to := space.step(int(g), int(widths[g]), -1)) is not None]
        if not candidates:
            break
        trial = np.repeat(widths[None], len(candidates), axis=0)
        for row, (group, to) in enumerate(candidates):
            trial[row, group] = to
        saved = used - budget.use(cost, trial)
        for row, (group, to) in enumerate(candidates):
            lost = curves[group][to] - curves[group][widths[group]]
            moves.append((float(lost / max(saved[row], 1e-12)), group, to))
        _, group, to = min(moves)
        widths[group] = to
        used = budget.use(cost, widths[None])[0]
    return widths
