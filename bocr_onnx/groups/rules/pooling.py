"""Pooling works channel by channel on the axes behind the second.

y[n, c, q] = pool over p in window(q) of x[n, c, p]
"""

from __future__ import annotations

from bocr_onnx.graph import Node
from bocr_onnx.groups.labels import Labeller
from bocr_onnx.groups.rules.registry import rule


@rule("AveragePool", "MaxPool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def pooling(node: Node, at: Labeller) -> None:
    """Passes the labels of axis 1."""
    axes = at.read(node.inputs[0])
    for axis, labels in axes.items():
        if axis > 1:
            at.freeze(node, labels, "the channels lie on an axis that is pooled")
    at.emit(node.outputs[0], {axis: labels for axis, labels in axes.items() if axis <= 1})
    indices = node.outputs[1] if len(node.outputs) > 1 else ""
    read = at.graph.readers.get(indices) or indices in at.graph.outputs or indices in at.captured
    if indices and read and 1 in axes:
        at.freeze(node, axes[1], "the indices of MaxPool count channels")
