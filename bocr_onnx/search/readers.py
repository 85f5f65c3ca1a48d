"""The operator that spends most MACs on reading each group, and how it weighs its channels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bocr_onnx.cost import CostModel
from bocr_onnx.groups import ChannelGroup, GroupIndex
from bocr_onnx.recovery import Affine, inner_channels, to_matrix


@dataclass(frozen=True, slots=True)
class GroupReader:
    """The operator that spends most MACs on reading a group.

    Attributes:
        n_inputs: Its input channels.
        n_outputs: Its output channels.
        kernel: Side of its window.
        stride: Stride of its window.
        n_params: Its weights.
        macs: Its multiply-accumulates.
        n_positions: Positions of its output.
        importance: Absolute weights that read each channel of the group, summed, shape `(n_channels,)`.
    """

    n_inputs: int
    n_outputs: int
    kernel: int
    stride: int
    n_params: int
    macs: float
    n_positions: int
    importance: tuple[float, ...]


def group_readers(index: GroupIndex, cost: CostModel, affines: tuple[Affine, ...]) -> tuple[GroupReader, ...]:
    """Returns the main reader of every group.

    Args:
        index: Groups of the model.
        cost: Its cost.
        affines: Its weighted operators.
    """
    return tuple(_reader(index, cost, affines, group) for group in index.groups)


def _reader(index: GroupIndex, cost: CostModel, affines: tuple[Affine, ...], group: ChannelGroup) -> GroupReader:
    graph = index.graph
    importance = np.zeros(group.n_channels)
    readers = []
    for affine in affines:
        weight = graph.operand(affine.weight)
        if affine.depthwise or weight is None:
            continue
        channels = inner_channels(affine, index)
        own = (channels >= group.start) & (channels < group.span.stop)
        if not own.any():
            continue
        readers.append(affine)
        matrix = np.abs(to_matrix(affine, graph, weight))
        norms = matrix.sum(axis=0).reshape(affine.n_inputs, affine.taps).sum(axis=1)
        np.add.at(importance, channels[own] - group.start, norms[own])
    if not readers:
        return GroupReader(group.n_channels, group.n_channels, 1, 1, 0, 0.0, 1, tuple(importance.tolist()))
    main = max(readers, key=lambda a: cost.node_macs.get(a.node.index, 0.0))
    weight = graph.operand(main.weight)
    assert weight is not None
    shape = graph.shapes[main.node.outputs[0]]
    strides = main.node.attributes.get("strides") or [1]
    return GroupReader(
        n_inputs=main.n_inputs,
        n_outputs=main.n_outputs,
        kernel=round(math.sqrt(main.taps)),
        stride=int(strides[0]),
        n_params=weight.size,
        macs=cost.node_macs.get(main.node.index, 0.0),
        n_positions=math.prod(shape[2:]),
        importance=tuple(importance.tolist()),
    )
