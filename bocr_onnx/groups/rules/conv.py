"""Convolutions consume the labels of their input channels and emit fresh ones.

    y[o] = b[o] + sum_i W[o, i] * x[i]        Conv, group 1: W is cut along i with x and along o with y
    y[g, o] = b[g, o] + sum_i W[g, o, i] * x[g, i]      group G: the i-th channel of every block goes together

A depthwise convolution (one input channel per block) mixes nothing: every output of a block carries the label of
the block's input, and `group` counts the labels that stay.
"""

from __future__ import annotations

import numpy as np

from bocr_onnx.graph import Node
from bocr_onnx.groups.labels import Labeller, Labels
from bocr_onnx.groups.rules.registry import rule


@rule("Conv")
def conv(node: Node, at: Labeller) -> None:
    """Carries labels through Conv."""
    weight = at.constant(node.input(1))
    bias = node.input(2)
    x = at.read(node.inputs[0])
    if weight is None or (bias and at.constant(bias) is None):
        at.freeze_inputs(node, "the weight or bias is computed, not constant")
        return
    _freeze_other_axes(node, at)
    group = int(node.attributes.get("group", 1))
    labels = x.get(1)
    if group > 1 and weight.shape[1] == 1:
        out = None if labels is None else _depthwise(node, at, labels, weight.shape[0] // group)
    elif group > 1:
        out = _grouped(node, at, labels, group, weight.shape)
    else:
        out = at.fresh(weight.shape[0])
        if labels is not None:
            at.cut((node.index, 1), 1, labels)
    if out is None:
        return
    at.cut((node.index, 1), 0, out)
    if bias:
        at.cut((node.index, 2), 0, out)
    at.emit(node.outputs[0], {1: out})


def _depthwise(node: Node, at: Labeller, labels: Labels, multiplier: int) -> Labels:
    at.count(node, "group", None, labels)
    return np.repeat(labels, multiplier)


def _grouped(node: Node, at: Labeller, labels: Labels | None, group: int, shape: tuple[int, ...]) -> Labels:
    if labels is not None:
        blocks = labels.reshape(group, -1)
        for block in blocks[1:]:
            at.join(blocks[0], block)
        at.cut((node.index, 1), 1, blocks[0])
    return np.tile(at.fresh(shape[0] // group), group)


@rule("ConvTranspose")
def conv_transpose(node: Node, at: Labeller) -> None:
    """Carries labels through ConvTranspose, whose weight is (C_in, C_out / group, ...)."""
    weight = at.constant(node.input(1))
    bias = node.input(2)
    if weight is None or (bias and at.constant(bias) is None) or int(node.attributes.get("group", 1)) != 1:
        at.freeze_inputs(node, "the weight or bias is computed, or the transposed convolution is grouped")
        return
    _freeze_other_axes(node, at)
    labels = at.read(node.inputs[0]).get(1)
    if labels is not None:
        at.cut((node.index, 1), 0, labels)
    out = at.fresh(weight.shape[1])
    at.cut((node.index, 1), 1, out)
    if bias:
        at.cut((node.index, 2), 0, out)
    at.emit(node.outputs[0], {1: out})


def _freeze_other_axes(node: Node, at: Labeller) -> None:
    for axis, labels in at.read(node.inputs[0]).items():
        if axis != 1:
            at.freeze(node, labels, "the channels lie on an axis that the convolution slides over")
