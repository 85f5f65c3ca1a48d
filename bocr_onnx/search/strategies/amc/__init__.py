"""The agent of He et al., with the history, the augmentation and the assistant of Mu et al."""

from bocr_onnx.search.strategies.amc.strategy import amc

__all__ = ["amc"]
