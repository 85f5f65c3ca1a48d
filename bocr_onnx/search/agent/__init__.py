"""The reinforcement-learning agent: deep deterministic policy gradient over the groups of a model."""

from bocr_onnx.search.agent.proposer import Amc

__all__ = ["Amc"]
