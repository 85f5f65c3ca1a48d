"""BOCR as it was published."""

from bocr_onnx.search.strategies.bocr_paper.strategy import bocr_paper

__all__ = ["bocr_paper"]
