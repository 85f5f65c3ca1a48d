"""What may be kept: a bound for each quantity that has one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bocr_onnx.cost import BOUNDS, CostModel, Widths
from bocr_onnx.errors import BudgetError, UsageError
from bocr_onnx.search.space import Point, SearchSpace


@dataclass(frozen=True, slots=True)
class Budget:
    """Shares of the original that may be kept.

    Attributes:
        shares: Share in (0, 1) by name of quantity, see `bocr_onnx.cost.BOUNDS`.

    Raises:
        UsageError: There is no bound, or one is out of range.
    """

    shares: Mapping[str, float]

    def __post_init__(self) -> None:
        """Checks the shares."""
        for name, value in self.shares.items():
            if not 0 < value < 1:
                raise UsageError(
                    f"`{name}` must be the share that is kept, between 0 and 1, got {value:g}",
                    hint=f"Half of it: `{name}=0.5`",
                )
        if not self.shares:
            raise UsageError("a budget must be given, got none", hint="Half the operations: `flops=0.5`")

    @property
    def label(self) -> str:
        """Returns a short name.

        Example:
            >>> Budget({"flops": 0.5, "size": 0.4}).label
            'flops0.5-size0.4'
        """
        return "-".join(f"{name}{value:g}" for name, value in self.shares.items())

    def use(self, cost: CostModel, widths: Widths) -> Point:
        """Returns how much of the budget policies use, shape `(n_policies,)`; at most 1 is within it.

        Args:
            cost: The cost model.
            widths: Shape `(n_policies, n_groups)`.
        """
        used = []
        for name, share in self.shares.items():
            total = BOUNDS[name].total
            used.append(total(cost, widths) / (share * total(cost, cost.full)[0]))
        return np.asarray(np.max(used, axis=0))

    def check_reachable(self, cost: CostModel, space: SearchSpace, hint: str = "") -> None:
        """Raises where the smallest policy exceeds the budget.

        Args:
            cost: Cost of the model.
            space: What the search may choose.
            hint: What would reach further.

        Raises:
            BudgetError: Names the smallest reachable share of the first bound that is out of reach.
        """
        for name, share in self.shares.items():
            if not space.free.size or BOUNDS[name].total(cost, cost.full)[0] <= 0:
                raise BudgetError(
                    f"`{name}={share:g}` must be reachable, but no group of channels can be cut",
                    hint=hint or "bocr-onnx inspect MODEL says why.",
                )
        if self.use(cost, space.low[None])[0] <= 1:
            return
        least = {name: BOUNDS[name].share(cost, space.low) for name in self.shares}
        name, share = next((n, s) for n, s in self.shares.items() if least[n] > s)
        smallest = np.ceil(least[name] * 1000) / 1000
        raise BudgetError(
            f"`{name}` must be reachable, got {share:g}; the smallest reachable share is {smallest:.3f}",
            hint=hint,
        )
