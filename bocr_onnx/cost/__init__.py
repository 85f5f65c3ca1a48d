"""MACs, parameters and bytes of a policy."""

from bocr_onnx.cost.model import Cost, CostModel, Terms, Widths, build_cost_model
from bocr_onnx.cost.prunable import Prunable, prunable
from bocr_onnx.cost.quantities import QUANTITIES, Quantity

__all__ = ["QUANTITIES", "Cost", "CostModel", "Prunable", "Quantity", "Terms", "Widths", "build_cost_model", "prunable"]
