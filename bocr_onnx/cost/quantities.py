"""What a budget can bound: quantities of a model that are functions of its widths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bocr_onnx.cost.model import Cost, CostModel, Widths


@dataclass(frozen=True, slots=True)
class Quantity:
    """One quantity.

    Attributes:
        name: Name of the budget, and of the option that sets it.
        label: Name in tables.
        unit: Unit in tables; empty for a count.
        field: Field of `Cost`, and name in reports.
        total: Total of policies, shape `(n_policies,)`, from a cost model and widths `(n_policies, n_groups)`.
    """

    name: str
    label: str
    unit: str
    field: str
    total: Callable[[CostModel, Widths], npt.NDArray[np.float64]]

    def of(self, cost: Cost) -> int:
        """Returns the quantity of one model."""
        value: int = getattr(cost, self.field)
        return value

    def share(self, cost: CostModel, widths: Widths) -> float:
        """Returns the share of the original that one policy keeps; 1 where the original has none of it."""
        whole = float(self.total(cost, cost.full)[0])
        return float(self.total(cost, widths)[0]) / whole if whole > 0 else 1.0


QUANTITIES = {
    q.name: q
    for q in (
        Quantity("flops", "MACs", "", "macs", CostModel.macs),
        Quantity("params", "parameters", "", "params", CostModel.params),
        Quantity("size", "file size", "B", "size_bytes", CostModel.size_bytes),
    )
}
"""Every quantity by name."""
