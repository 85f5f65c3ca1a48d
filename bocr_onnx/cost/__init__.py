"""MACs, parameters and bytes of a policy."""

from bocr_onnx.cost.latency import LatencyModel, read_latency
from bocr_onnx.cost.model import Cost, CostModel, Terms, Widths, build_cost_model
from bocr_onnx.cost.prunable import Prunable, prunable, slim_cost
from bocr_onnx.cost.quantities import BOUNDS, LATENCY, QUANTITIES, Quantity, quantities_of

__all__ = [
    "BOUNDS",
    "LATENCY",
    "QUANTITIES",
    "Cost",
    "CostModel",
    "LatencyModel",
    "Prunable",
    "Quantity",
    "Terms",
    "Widths",
    "build_cost_model",
    "prunable",
    "slim_cost",
    "quantities_of",
    "read_latency",
]
