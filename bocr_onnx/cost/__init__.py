"""MACs, parameters and bytes of a policy."""

from bocr_onnx.cost.model import Cost, CostModel, Terms, Widths, build_cost_model
from bocr_onnx.cost.prunable import Prunable, prunable
from bocr_onnx.cost.quantities import QUANTITIES, Quantity, quantities_of

__all__ = [
    "QUANTITIES",
    "Cost",
    "CostModel",
    "Prunable",
    "Quantity",
    "Terms",
    "Widths",
    "build_cost_model",
    "prunable",
    "quantities_of",
]
