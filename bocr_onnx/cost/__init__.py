"""MACs, parameters and bytes of a policy."""

from bocr_onnx.cost.model import Cost, CostModel, Terms, Widths, build_cost_model

__all__ = ["Cost", "CostModel", "Terms", "Widths", "build_cost_model"]
