"""What a budget can bound: quantities of a model that are functions of its widths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bocr_onnx.cost.model import CostModel, Widths


@dataclass(frozen=True, slots=True)
class Quantity:
    """One quantity.

    Attributes:
        name: Name of the budget, and of the option that sets it.
        label: Name in tables.
        unit: Unit in tables; empty for a count.
        field: Name in reports and in the history.
        total: Total of policies, shape `(n_policies,)`, from a cost model and widths `(n_policies, n_groups)`.
    """

    name: str
    label: str
    unit: str
    field: str
    total: Callable[[CostModel, Widths], npt.NDArray[np.float64]]

    def of(self, cost: CostModel, widths: Widths | None = None) -> int:
        """Returns the quantity of one policy of a model, of the whole model where none is given."""
        return round(float(self.total(cost, cost.full if widths is None else widths)[0]))

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
"""Every quantity that is counted, by name."""

LATENCY = Quantity("latency", "latency", "ms", "latency_ms", CostModel.latency_ms)
BOUNDS = {**QUANTITIES, LATENCY.name: LATENCY}
"""Every quantity that a budget can bound, by name; latency is predicted, where it was fitted."""


def quantities_of(cost: CostModel, widths: Widths | None = None) -> dict[str, int]:
    """Returns every quantity of one policy of a model by its field, of the whole model where none is given."""
    return {q.field: q.of(cost, widths) for q in QUANTITIES.values()}
