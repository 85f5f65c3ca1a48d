"""What a strategy is given: the space, the groups, the budget to meet, and the results of earlier searches."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bocr_onnx.options import StrategyOptions
from bocr_onnx.search.prior import Prior
from bocr_onnx.search.projection import Projection
from bocr_onnx.search.readers import GroupReader
from bocr_onnx.search.space import Point, SearchSpace

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Problem:
    """One search.

    Attributes:
        projection: Space, cost and budget.
        curves: For every group its error at width w, shape `(n_channels + 1,)`; from the sensitivity scan.
        n_trials: Evaluations in all.
        seed: Seed for all random draws.
        readers: The operator that reads each group.
        settings: Options of particular strategies.
        prior: Results of earlier searches.
        patience: Trials without a gain after which the search stops; 0 never.
    """

    projection: Projection
    curves: tuple[Floats, ...]
    n_trials: int
    seed: int
    readers: tuple[GroupReader, ...]
    settings: StrategyOptions = field(default_factory=StrategyOptions)
    prior: Prior = field(default_factory=Prior)
    patience: int = 0

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

    def errors_at(self, ratios: Point) -> Floats:
        """Returns the error curve of every group at keep ratios, shape `(n_groups, n_ratios)`."""
        return np.array([np.interp(ratios * (len(c) - 1), np.arange(len(c)), c) for c in self.curves])

    def rng(self, number: int) -> np.random.Generator:
        """Returns the generator of trial `number`, the same in every process."""
        return np.random.default_rng([self.seed, number])
