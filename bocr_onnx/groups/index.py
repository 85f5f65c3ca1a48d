"""Channel groups of a graph: labels are carried through, and their classes are gathered by signature."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from bocr_onnx.graph import ModelGraph, Node, Operand, is_weighted
from bocr_onnx.groups.labels import Labeller
from bocr_onnx.groups.records import Default, Labels, Slot, Work
from bocr_onnx.groups.settle import FIXED, Settled, settle
from bocr_onnx.groups.walk import carry_labels

Channels = npt.NDArray[np.int64]
"""Along one axis, shape `(n,)`, int64: number of the channel in `0 .. GroupIndex.n_channels`, -1 where it is fixed."""


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
        graph: The model.
        groups: In the order of the graph.
        refusals: In the order of the graph.
        slices: Constant operand -> channels along each axis that is cut.
        slots: Integers that follow what is kept -> channels, shape `(n, m)`: an entry stays while any of its row does.
        axes: Computed tensor -> channels along each labelled axis.
        n_channels: Channels of all groups together.
        pins: Operands that say what they said, although the model computes them from widths.
        defaults: What an omitted operand or attribute would have to say before it is cut.
        reads: Read of a computed operand that is summed over -> axis and channels along it.
        sources: Weight of an operator that makes channels -> axis of its outputs.
        sinks: Weight of an operator that sums over channels -> axes that are summed over.
        work: Node -> its multiply-accumulates.
    """

    graph: ModelGraph
    groups: tuple[ChannelGroup, ...]
    refusals: tuple[Refusal, ...]
    slices: Mapping[Operand, Mapping[int, Channels]]
    slots: Mapping[Slot, Channels]
    axes: Mapping[str, Mapping[int, Channels]]
    n_channels: int
    pins: frozenset[Operand] = frozenset()
    defaults: Mapping[tuple[int, int | str], Default] = field(default_factory=dict)
    reads: Mapping[Operand, tuple[int, Channels]] = field(default_factory=dict)
    sources: Mapping[Operand, int] = field(default_factory=dict)
    sinks: Mapping[Operand, tuple[int, ...]] = field(default_factory=dict)
    work: Mapping[int, tuple[Work, ...]] = field(default_factory=dict)

    def group(self, name: str) -> ChannelGroup:
        """Returns a group by name."""
        return next(g for g in self.groups if g.name == name)


CONTROL = frozenset({"If", "Loop", "Scan", "SequenceMap"})
"""Operators that hold subgraphs; whatever these compute, none of it is cut."""


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
    at = carry_labels(graph)
    settled = settle(at)
    order, alone = _gather(at, settled)
    number = np.full(at.n_labels + 1, -1, dtype=np.int64)  # the last entry is that of FIXED
    for channel, cls in enumerate(cls for group in order for cls in group):
        number[cls] = channel
    channels = number[settled.classed]
    slices = {operand: {axis: channels[labels] for axis, labels in axes.items()} for operand, axes in at.slices.items()}
    return GroupIndex(
        graph=graph,
        groups=tuple(_describe(graph, at, order, slices)),
        refusals=tuple(_refusals(at, settled.merged, alone)),
        slices=slices,
        pins=frozenset(at.pins),
        slots={slot: channels[rows] for slot, rows in at.slots.items()},
        defaults=at.defaults,
        reads={operand: (axis, channels[labels]) for operand, (axis, labels) in at.reads.items()},
        sources=at.sources,
        sinks=at.sinks,
        work={
            i: tuple(replace(w, inner=tuple(channels[labels] for labels in w.inner)) for w in works)
            for i, works in at.work.items()
        },
        axes={name: {a: channels[labels] for a, labels in axes.items()} for name, axes in settled.axes.items()},
        n_channels=sum(len(group) for group in order),
    )


def _gather(at: Labeller, settled: Settled) -> tuple[list[list[int]], list[int]]:
    """Returns the classes that may be cut, gathered by the set of axes they lie on, and those that are alone there."""
    classed = settled.classed
    signature: dict[int, list[int]] = defaultdict(list)
    carriers = [labels for axes in at.slices.values() for labels in axes.values()]
    carriers += [labels for axes in settled.axes.values() for labels in axes.values()]
    for number, labels in enumerate(carriers):
        found, times = np.unique(classed[labels], return_counts=True)
        for cls, count in zip(found.tolist(), times.tolist(), strict=True):
            if cls != FIXED:
                signature[cls] += (number, count)
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    cut = {int(c) for axes in at.slices.values() for labels in axes.values() for c in classed[labels]}
    for cls in sorted(signature):
        if cls in cut:
            groups[tuple(signature[cls])].append(cls)
    several = [members for members in groups.values() if len(members) > 1]
    return several, [members[0] for members in groups.values() if len(members) == 1]


def _describe(
    graph: ModelGraph, at: Labeller, order: list[list[int]], slices: Mapping[Operand, Mapping[int, Channels]]
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
    made = {(graph.nodes[node].name, axis) for (node, _), axis in at.sources.items()}
    for i, group in enumerate(order):
        yield ChannelGroup(_name(made, members[i], taken), int(starts[i]), len(group), tuple(members[i]))


def _name(made: set[tuple[str, int]], members: list[Member], taken: set[str]) -> str:
    """Returns the first node that makes the channels, numbered where an earlier group has its name."""
    makers = [m.node for m in members if (m.node, m.axis) in made]
    name = next((m for m in makers if m not in taken), (makers or [m.node for m in members])[0])
    number = 2
    while name in taken:
        name = f"{name.split(':')[0]}:{number}"
        number += 1
    taken.add(name)
    return name


def _refusals(at: Labeller, classed: Labels, alone: list[int]) -> Iterator[Refusal]:
    touched = _touched(at, classed)
    stored = {int(cls) for _, labels in _carriers(at) for cls in np.unique(classed[labels])}
    merged: dict[tuple[int, str], set[int]] = defaultdict(set)
    for freeze in at.freezes:
        if freeze.reason:
            merged[(freeze.node, freeze.reason)] |= stored & set(classed[freeze.labels].tolist())
    n_tied = dict(zip(*np.unique(classed, return_counts=True), strict=True))
    for cls in alone:
        if n_tied[cls] > 1 and touched.get(cls):
            merged[(min(touched[cls]), "all its channels are tied to each other, so that none can go")].add(cls)
    for (index, reason), found in sorted(merged.items()):
        node: Node = at.graph.nodes[index]
        nodes = {i for cls in found for i in touched.get(cls, ())}
        if (is_weighted(node) or node.op in CONTROL) and index not in at.work:
            nodes.add(index)
        if found or nodes or is_weighted(node) or node.op in CONTROL or _is_foreign(at, node):
            yield Refusal(node.name, node.op, reason, len(found), tuple(sorted(nodes)))


def _is_foreign(at: Labeller, node: Node) -> bool:
    """Returns whether a node of another domain holds a matrix: whatever it computes, it costs something."""
    arrays = (at.constant(name) for name in node.inputs if name)
    return bool(node.domain) and any(array is not None and array.ndim > 1 for array in arrays)


def _touched(at: Labeller, classed: Labels) -> dict[int, set[int]]:
    """Returns the weighted nodes that read or make the channels of each class."""
    found: dict[int, set[int]] = defaultdict(set)
    for index, labels in _carriers(at):
        if is_weighted(at.graph.nodes[index]):
            for cls in np.unique(classed[labels]).tolist():
                found[cls].add(index)
    return found


def _carriers(at: Labeller) -> Iterator[tuple[int, Labels]]:
    """Yields the labels along every axis of a constant that is cut, and of every read that is summed over."""
    yield from ((i, labels) for (i, _), axes in at.slices.items() for labels in axes.values())
    yield from ((i, labels) for (i, _), (_, labels) in at.reads.items())
