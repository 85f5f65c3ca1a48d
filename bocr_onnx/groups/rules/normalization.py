"""Normalization: exact under a cut where channels are normalized apart, or in blocks that stay whole.

    y[c] = scale[c] * (x[c] - mean[c]) / sqrt(var[c] + eps) + bias[c]

BatchNormalization stores mean and var; InstanceNormalization takes them over space, channel by channel: the
constants go with the channel. GroupNormalization takes them over a block of channels: blocks live or die as one.
LayerNormalization, RMSNormalization and LRN take them over the channels: these are frozen.
"""

from __future__ import annotations

from bocr_onnx.graph import Node
from bocr_onnx.groups.labels import Labeller
from bocr_onnx.groups.records import Block, RuleError, on
from bocr_onnx.groups.rules.registry import rule


@rule("BatchNormalization", "InstanceNormalization")
def per_channel(node: Node, at: Labeller) -> None:
    """Carries labels through a normalization of axis 1 by per-channel constants."""
    if any(at.constant(name) is None for name in node.inputs[1:]):
        raise RuleError("a normalization constant is computed")
    if any(name in at.graph.readers or name in at.graph.outputs for name in node.outputs[1:] if name):
        raise RuleError("the statistics of training are read")
    labels = at.along(node, node.inputs[0], 1, "the channels lie on an axis that is normalized over")
    if labels is None:
        return
    for position in range(1, len(node.inputs)):
        at.cut((node.index, position), 0, labels)
    at.emit(node.outputs[0], [on(1, labels)])


@rule("GroupNormalization")
def group_normalization(node: Node, at: Labeller) -> None:
    """Ties the channels of every block; the constants are one per block before opset 21, one per channel since."""
    if any(at.constant(name) is None for name in node.inputs[1:]):
        raise RuleError("a normalization constant is computed")
    labels = at.along(node, node.inputs[0], 1, "the channels lie on an axis that is normalized over")
    if labels is None:
        return
    n_blocks = int(node.attributes["num_groups"])
    blocks = at.collapse(Block((0, 1), labels.reshape(n_blocks, -1)), 0)
    at.count(node, "num_groups", None, blocks)
    for position in (1, 2):
        at.cut((node.index, position), 0, blocks if at.graph.opset < 21 else labels)
    at.emit(node.outputs[0], [on(1, labels)])


@rule("LayerNormalization", "RMSNormalization")
def layer_normalization(node: Node, at: Labeller) -> None:
    """Freezes the axes that are normalized together, passes the others."""
    rank = len(at.shape(node.inputs[0]))
    first = int(node.attributes.get("axis", -1)) % rank
    for name in node.outputs[1:]:
        if name in at.graph.readers or name in at.graph.outputs:
            raise RuleError("the statistics of the normalization are read")
    _pass_others(node, at, set(range(first, rank)))


@rule("Softmax", "LogSoftmax", "Hardmax")
def softmax(node: Node, at: Labeller) -> None:
    """Passes labels of the axes that are not normalized; before opset 13 every axis from `axis` on is."""
    old = at.graph.opset < 13
    rank = len(at.shape(node.inputs[0]))
    axis = int(node.attributes.get("axis", 1 if old else -1)) % max(rank, 1)
    _pass_others(node, at, set(range(axis, rank)) if old else {axis})


@rule("LRN")
def local_response_normalization(node: Node, at: Labeller) -> None:
    """Freezes the channels: each is divided by the energy of its neighbours."""
    _pass_others(node, at, {1})


@rule("LpNormalization")
def lp_normalization(node: Node, at: Labeller) -> None:
    """Freezes the axis that is normalized."""
    rank = len(at.shape(node.inputs[0]))
    _pass_others(node, at, {int(node.attributes.get("axis", -1)) % rank})


@rule("MeanVarianceNormalization")
def mean_variance_normalization(node: Node, at: Labeller) -> None:
    """Freezes the axes that are normalized together."""
    rank = len(at.shape(node.inputs[0]))
    _pass_others(node, at, {int(a) % rank for a in node.attributes.get("axes") or (0, 2, 3)})


def _pass_others(node: Node, at: Labeller, axes: set[int]) -> None:
    reason = f"{node.op} normalizes over the channels"
    blocks = (at.squash(node, b, axes, reason, keeps=True) for b in at.read(node.inputs[0]))
    at.emit(node.outputs[0], [b for b in blocks if b is not None])
