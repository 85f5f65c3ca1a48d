"""Channel groups of a graph: labels are carried through, and their classes are gathered by signature."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bocr_onnx.graph import ModelGraph, Node, Operand
from bocr_onnx.groups import rules
from bocr_onnx.groups.labels import Labeller, Labels, Slot, classes

Channels = npt.NDArray[np.int64]
"""Along one axis, shape `(n,)`, int64: number of the channel in `0 .. GroupIndex.n_channels`, -1 where it is fixed."""

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators that read channels into a sum; where the proof masks them."""


@dataclass(frozen=True, slots=True)
class Member:
    """An axis of a constant that is cut with a group.

    Attributes:
        node: Name of the node that reads the constant.
        op: Its operator.
        tensor: Name of the constant.
        axis: The axis that is cut.
        width: How many entries of the axis belong to the group.
    """

    node: str
    op: str
    tensor: str
    axis: int
    width: int


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Channels that lie on the same axes and share one keep ratio.

    Attributes:
        name: Name of the first node that makes them.
        start: Number of the first channel; the others follow.
        n_channels: How many there are.
        members: Axes of constants that are cut, in node order.
    """

    name: str
    start: int
    n_channels: int
    members: tuple[Member, ...]

    @property
    def span(self) -> slice:
        """Returns where the group's channels lie in a vector over all channels."""
        return slice(self.start, self.start + self.n_channels)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Channels that were left alone, and why.

    Attributes:
        node: Name of the node that forbids the cut.
        op: Its operator.
        reason: In words.
        n_channels: How many channels it keeps.
        nodes: Indices of the weighted nodes that keep MACs because of it.
    """

    node: str
    op: str
    reason: str
    n_channels: int
    nodes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GroupIndex:
    """Everything a cut needs to know, as data.

    Attributes:
        groups: In the order of the graph.
        refusals: In the order of the graph.
        slices: Constant operand -> channels along each axis that is cut.
        slots: Integers that count kept channels.
        axes: Computed tensor -> channels along each labelled axis.
        n_channels: Channels of all groups together.
    """

    groups: tuple[ChannelGroup, ...]
    refusals: tuple[Refusal, ...]
    slices: Mapping[Operand, Mapping[int, Channels]]
    slots: Mapping[Slot, Channels]
    axes: Mapping[str, Mapping[int, Channels]]
    n_channels: int

    def group(self, name: str) -> ChannelGroup:
        """Returns a group by name."""
        return next(g for g in self.groups if g.name == name)


def build_index(graph: ModelGraph) -> GroupIndex:
    """Returns the channel groups of a graph.

    Args:
        graph: The model.

    Returns:
        Groups, refusals and what is cut with each channel. The time is linear in the number of nodes and labels.

    Example:
        >>> import numpy as np, onnx
        >>> from bocr_onnx.graph import from_proto
        >>> proto = onnx.parser.parse_model('''
        ... <ir_version: 8, opset_import: ["" : 17]>
        ... tiny (float[N, 3] x) => (float[N, 2] y)
        ... <float[3, 8] a, float[8, 2] b> { h = MatMul(x, a)  r = Relu(h)  y = MatMul(r, b) }''')
        >>> ones = (("a", np.ones((3, 8), np.float32)), ("b", np.ones((8, 2), np.float32)))
        >>> proto.graph.initializer.extend([onnx.numpy_helper.from_array(array, name) for name, array in ones])
        >>> [(g.name, g.n_channels) for g in build_index(from_proto(proto)).groups]
        [('MatMul_0', 8)]
    """
    at = _carry_labels(graph)
    classed = classes(at.n_labels, at.joins)
    frozen = np.zeros(at.n_labels, dtype=bool)
    for freeze in at.freezes:
        frozen[classed[freeze.labels]] = True
    order = _gather(at, classed, frozen)
    number = np.full(at.n_labels, -1, dtype=np.int64)
    for channel, cls in enumerate(cls for group in order for cls in group):
        number[cls] = channel
    channels = number[classed] if at.n_labels else number
    slices = {operand: {axis: channels[labels] for axis, labels in axes.items()} for operand, axes in at.slices.items()}
    return GroupIndex(
        groups=tuple(_describe(graph, order, slices)),
        refusals=tuple(_refusals(at, classed)),
        slices=slices,
        slots={slot: channels[labels] for slot, labels in at.slots.items()},
        axes={name: {a: channels[labels] for a, labels in axes.items()} for name, axes in at.axes.items()},
        n_channels=sum(len(group) for group in order),
    )


def _carry_labels(graph: ModelGraph) -> Labeller:
    at = Labeller(graph)
    for node in graph.nodes:
        if node.outputs and all(graph.constant(name) is not None for name in node.outputs if name):
            continue
        rule = rules.find_rule(node.domain, node.op, graph.opset)
        if node.captures:
            at.freeze_inputs(node, "a subgraph reads the channels")
        elif rule is None:
            at.freeze_inputs(node, f"operator {node.domain or 'ai.onnx'}.{node.op} has no rule")
        else:
            try:
                rule(node, at)
            except (ArithmeticError, LookupError, TypeError, ValueError):  # an untrusted file may say anything
                at.freeze_inputs(node, "its attributes do not fit its inputs")
    for name in graph.outputs:
        for labels in at.read(name).values():
            at.freeze(graph.nodes[graph.producer[name]], labels, f"they are the model's output {name!r}")
    _tie_shared_weights(graph, at)
    return at


def _tie_shared_weights(graph: ModelGraph, at: Labeller) -> None:
    """Joins the labels of a weight that several operators share, so that it stays one tensor."""
    by_name: dict[str, list[Operand]] = defaultdict(list)
    for operand in at.slices:
        node = graph.nodes[operand[0]]
        if node.op in WEIGHTED and operand[1] == 1:
            by_name[node.inputs[1]].append(operand)
    for name, operands in by_name.items():
        for other in operands[1:]:
            for axis in range(graph.constants[name].ndim):
                first, labels = at.slices[operands[0]].get(axis), at.slices[other].get(axis)
                if first is not None and labels is not None:
                    at.join(first, labels)
                elif first is not None or labels is not None:
                    only = first if first is not None else labels
                    assert only is not None
                    at.freeze(graph.nodes[other[0]], only, f"weight {name!r} is shared with a fixed reader")


def _gather(at: Labeller, classed: Labels, frozen: npt.NDArray[np.bool_]) -> list[list[int]]:
    """Returns the classes that may be cut, gathered by the set of axes they lie on."""
    signature: dict[int, list[int]] = defaultdict(list)
    carriers = [labels for axes in at.slices.values() for labels in axes.values()]
    carriers += [labels for axes in at.axes.values() for labels in axes.values()]
    for number, labels in enumerate(carriers):
        found, times = np.unique(classed[labels], return_counts=True)
        for cls, count in zip(found.tolist(), times.tolist(), strict=True):
            if not frozen[cls]:
                signature[cls] += (number, count)
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    cut = {int(c) for axes in at.slices.values() for labels in axes.values() for c in classed[labels]}
    for cls in sorted(signature):
        if cls in cut:
            groups[tuple(signature[cls])].append(cls)
    return [members for members in groups.values() if len(members) > 1]


def _describe(
    graph: ModelGraph, order: list[list[int]], slices: Mapping[Operand, Mapping[int, Channels]]
) -> Iterator[ChannelGroup]:
    starts = np.cumsum([0, *(len(group) for group in order)])
    owner = np.repeat(np.arange(len(order)), [len(group) for group in order])
    members: list[list[Member]] = [[] for _ in order]
    for operand in sorted(slices):
        node = graph.nodes[operand[0]]
        for axis, channels in slices[operand].items():
            for group, width in zip(*np.unique(owner[channels[channels >= 0]], return_counts=True), strict=True):
                members[group].append(Member(node.name, node.op, node.inputs[operand[1]], axis, int(width)))
    taken: set[str] = set()
    nodes = {node.name: node for node in graph.nodes}
    for i, group in enumerate(order):
        yield ChannelGroup(_name(nodes, members[i], taken), int(starts[i]), len(group), tuple(members[i]))


def _name(nodes: Mapping[str, Node], members: list[Member], taken: set[str]) -> str:
    makers = [m.node for m in members if m.op in WEIGHTED and _is_output_axis(nodes[m.node], m)]
    name = next((m for m in makers if m not in taken), (makers or [m.node for m in members])[0])
    number = 2
    while name in taken:
        name = f"{name.split(':')[0]}:{number}"
        number += 1
    taken.add(name)
    return name


def _is_output_axis(node: Node, member: Member) -> bool:
    if member.tensor != node.input(1):
        return False
    transposed = member.op == "Gemm" and not node.attributes.get("transB", 0)
    return member.axis == (1 if transposed or member.op in ("MatMul", "ConvTranspose") else 0)


def _refusals(at: Labeller, classed: Labels) -> Iterator[Refusal]:
    touched: dict[int, set[int]] = defaultdict(set)
    for (index, position), axes in at.slices.items():
        if position == 1 and at.graph.nodes[index].op in WEIGHTED:
            for labels in axes.values():
                for cls in np.unique(classed[labels]).tolist():
                    touched[cls].add(index)
    merged: dict[tuple[int, str], set[int]] = defaultdict(set)
    for freeze in at.freezes:
        if freeze.reason:
            merged[(freeze.node, freeze.reason)] |= set(classed[freeze.labels].tolist())
    for (index, reason), found in sorted(merged.items()):
        node: Node = at.graph.nodes[index]
        nodes = {i for cls in found for i in touched.get(cls, ())}
        yield Refusal(node.name, node.op, reason, len(found), tuple(sorted(nodes)))
