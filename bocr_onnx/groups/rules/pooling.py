"""Sampling over space works channel by channel on the axes behind the second.

y[n, c, q] = pool over p in window(q) of x[n, c, p]
"""

from __future__ import annotations

from bocr_onnx.graph import Node
from bocr_onnx.groups.labels import Labeller
from bocr_onnx.groups.records import RuleError
from bocr_onnx.groups.rules.registry import rule


@rule("QLinearAveragePool", "QLinearGlobalAveragePool", domain="com.microsoft")
@rule("AveragePool", "MaxPool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def pooling(node: Node, at: Labeller) -> None:
    """Passes the labels of the first two axes."""
    if node.attributes.get("channels_last", 0):
        raise RuleError("the channels are taken to be the last axis")
    _pass_outer(node, at)
    indices = node.outputs[1] if len(node.outputs) > 1 else ""
    read = at.graph.readers.get(indices) or indices in at.graph.outputs or indices in at.captured
    if indices and read:
        raise RuleError("the indices of MaxPool count channels")


@rule("GridSample", "RoiAlign", "MaxRoiPool")
def sampled(node: Node, at: Labeller) -> None:
    """Passes the labels of axis 1; where to look is not a channel."""
    for name in node.inputs[1:]:
        if at.read(name):
            raise RuleError("the channels say where to sample")
    for block in at.read(node.inputs[0]):
        if 0 in block.axes:
            raise RuleError("the channels lie on the batch axis")
    _pass_outer(node, at)


def _pass_outer(node: Node, at: Labeller) -> None:
    reason = "the channels lie on an axis that is pooled"
    blocks = (at.squash(node, b, {a for a in b.axes if a > 1}, reason) for b in at.read(node.inputs[0]))
    at.emit(node.outputs[0], [b for b in blocks if b is not None])
