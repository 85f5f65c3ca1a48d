"""Normalization with stored or per-channel statistics keeps channels apart.

    y[c] = scale[c] * (x[c] - mean[c]) / sqrt(var[c] + eps) + bias[c]

BatchNormalization stores mean and var; InstanceNormalization takes them over space, channel by channel. Both are
exact under a cut: the constants go with the channel.
"""

from __future__ import annotations

from bocr_onnx.graph import Node
from bocr_onnx.groups.labels import Labeller
from bocr_onnx.groups.rules.registry import rule


@rule("BatchNormalization", "InstanceNormalization")
def per_channel(node: Node, at: Labeller) -> None:
    """Carries labels through a normalization of axis 1 by per-channel constants."""
    if any(at.constant(name) is None for name in node.inputs[1:]):
        at.freeze_inputs(node, "a normalization constant is computed")
        return
    if any(name in at.graph.readers or name in at.graph.outputs for name in node.outputs[1:] if name):
        at.freeze_inputs(node, "the statistics of training are read")
        return
    axes = at.read(node.inputs[0])
    for axis, labels in axes.items():
        if axis != 1:
            at.freeze(node, labels, "the channels lie on an axis that is not normalized channel by channel")
    if 1 not in axes:
        return
    for position in range(1, len(node.inputs)):
        at.cut((node.index, position), 0, axes[1])
    at.emit(node.outputs[0], {1: axes[1]})


@rule("Softmax", "LogSoftmax", "Hardmax")
def softmax(node: Node, at: Labeller) -> None:
    """Passes labels of the axes that are not normalized; before opset 13 every axis from `axis` on is."""
    shape = at.shape(node.inputs[0])
    axes = at.read(node.inputs[0])
    if shape is None:
        at.freeze_inputs(node, "a shape is unknown")
        return
    old = at.graph.opset < 13
    axis = int(node.attributes.get("axis", 1 if old else -1)) % max(len(shape), 1)
    kept = {}
    for own, labels in axes.items():
        if own == axis or (old and own > axis):
            at.freeze(node, labels, f"{node.op} normalizes over the channels")
        else:
            kept[own] = labels
    at.emit(node.outputs[0], kept)
