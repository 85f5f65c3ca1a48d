"""Convolutions consume the labels of their input channels and emit fresh ones.

    y[o] = b[o] + sum_i W[o, i] * x[i]        Conv, group 1: W is cut along i with x and along o with y
    y[g, o] = b[g, o] + sum_i W[g, o, i] * x[g, i]      group G: the i-th channel of every block goes together

A depthwise convolution (one input and one filter row per block) mixes nothing: every output of a block carries the
label of the block's input, and `group` counts the labels that stay. ConvTranspose stores W as (C_in, C_out / G, ...).

ConvInteger and QLinearConv compute the same on x - x_zero and W - W_zero; scales and zero points of W, where there is
one for every output, are cut with the outputs.
"""

from __future__ import annotations

import math

import numpy as np

from bocr_onnx.graph import Array, Node, operand_positions, scale_positions
from bocr_onnx.groups.labels import Labeller
from bocr_onnx.groups.records import Labels, RuleError, Work, on
from bocr_onnx.groups.rules.registry import rule

SLIDES = "the channels lie on an axis that the convolution slides over"


@rule("Conv", "ConvInteger", "QLinearConv")
def conv(node: Node, at: Labeller) -> None:
    """Carries labels through Conv, whose weight is (C_out, C_in / group, ...)."""
    weight = _weight(node, at)
    place = (node.index, operand_positions(node)[1])
    n_groups = int(node.attributes.get("group", 1))
    labels = at.along(node, node.inputs[0], 1, SLIDES)
    if labels is not None:
        at.consume(node, 0, 1, labels)
    inner: tuple[Labels, ...] = ()
    if n_groups > 1 and weight.shape[1] == 1:
        if labels is None:
            return
        at.count(node, "group", None, labels)
        out = np.repeat(labels, weight.shape[0] // n_groups)
    else:
        if labels is not None:
            inner = (_tied_blocks(at, labels, n_groups),)
            at.cut(place, 1, inner[0])
            at.sinks[place] = (1,)
        out = np.tile(at.fresh(weight.shape[0] // n_groups), n_groups)
        at.sources[place] = 0
    at.cut(place, 0, out)
    at.work[node.index] = (Work(node.outputs[0], math.prod(weight.shape[1:]), inner),)
    _finish(node, at, out)


@rule("ConvTranspose")
def conv_transpose(node: Node, at: Labeller) -> None:
    """Carries labels through ConvTranspose, whose weight is (C_in, C_out / group, ...)."""
    weight = _weight(node, at)
    n_groups = int(node.attributes.get("group", 1))
    labels = at.along(node, node.inputs[0], 1, SLIDES)
    made: tuple[Labels, ...]
    if labels is not None:
        at.consume(node, 0, 1, labels)
    if n_groups > 1 and weight.shape[0] == n_groups:
        if labels is None:
            return
        at.count(node, "group", None, labels)
        at.cut((node.index, 1), 0, labels)
        out, made = np.repeat(labels, weight.shape[1]), ()
    else:
        if labels is not None:
            _tied_blocks(at, labels, n_groups)
            at.cut((node.index, 1), 0, labels)
            at.sinks[(node.index, 1)] = (0,)
        made = (at.fresh(weight.shape[1]),)
        at.cut((node.index, 1), 1, made[0])
        at.sources[(node.index, 1)] = 1
        out = np.tile(made[0], n_groups)
    at.work[node.index] = (Work(node.inputs[0], math.prod(weight.shape[1:]), made),)
    _finish(node, at, out)


def _weight(node: Node, at: Labeller) -> Array:
    _, position, *bias = operand_positions(node)
    weight = at.constant(node.inputs[position])
    if weight is None or any(at.constant(node.inputs[p]) is None for p in bias):
        raise RuleError("the weight or bias is computed, not constant")
    if any(at.constant(node.inputs[p]) is None for p in scale_positions(node, position)):
        raise RuleError("the scale or zero point of the weight is computed, not constant")
    return weight


def _tied_blocks(at: Labeller, labels: Labels, n_groups: int) -> Labels:
    """Ties the i-th channel of every block; returns the labels of the first."""
    blocks = labels.reshape(n_groups, -1)
    if n_groups > 1:
        at.join(np.repeat(blocks[:1], n_groups - 1, axis=0), blocks[1:])
    first: Labels = blocks[0]
    return first


def _finish(node: Node, at: Labeller, out: Labels) -> None:
    _, weight, *bias = operand_positions(node)
    scales = [p for p in scale_positions(node, weight) if math.prod(at.shape(node.inputs[p])) > 1]
    for position in (*bias, *scales):
        at.cut((node.index, position), 0, out)
    at.emit(node.outputs[0], [on(1, out)])
