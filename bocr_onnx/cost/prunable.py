"""A model's groups and its cost: what can be cut, and what that saves."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import ModelProto

from bocr_onnx.cost.model import CostModel, build_cost_model
from bocr_onnx.graph import ModelGraph, from_proto
from bocr_onnx.groups import GroupIndex, build_index


@dataclass(frozen=True, slots=True)
class Prunable:
    """A model that can be pruned.

    Attributes:
        index: Groups of the model.
        cost: Its cost model.
    """

    index: GroupIndex
    cost: CostModel

    @property
    def graph(self) -> ModelGraph:
        """Returns the model."""
        return self.index.graph


def prunable(graph: ModelGraph) -> Prunable:
    """Returns a model with its groups and its cost."""
    index = build_index(graph)
    return Prunable(index, build_cost_model(index))


def slim_cost(slim: ModelProto, original: ModelGraph) -> CostModel:
    """Returns the cost model of a slim model, counted on itself and not predicted from its original.

    Args:
        slim: The model.
        original: Gives the sizes of open axes.
    """
    return prunable(from_proto(slim, input_shapes=original.input_shapes)).cost
