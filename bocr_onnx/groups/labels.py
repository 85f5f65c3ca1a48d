"""Channel labels: an array of integers rides on every axis whose channels may be cut.

Two axes that carry the same label lose that channel together. Joining labels is a union-find; a label that meets
something which must not change (a graph output, a mixing operator) is frozen, and with it its whole class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bocr_onnx.graph import Array, ModelGraph, Node, Operand

Labels = npt.NDArray[np.int64]
"""Labels along one axis, shape `(n,)`, int64."""

Axes = dict[int, Labels]
"""Labelled axes of one tensor, by non-negative axis."""


MAX_LABELS = 1 << 20


@dataclass(frozen=True, slots=True)
class Slot:
    """An integer that counts channels: entry `position` of an operand (input number) or of an attribute (name)."""

    node: int
    where: int | str
    position: int | None


@dataclass(frozen=True, slots=True)
class Freeze:
    """Labels that were frozen, and why."""

    node: int
    reason: str
    labels: Labels


@dataclass(slots=True)
class Labeller:
    """What the operator rules write on while the labels travel through the graph.

    Attributes:
        graph: The model.
        axes: Tensor name -> labelled axes.
        slices: Constant operand -> labelled axes, along which it is cut.
        slots: Integers that become the number of kept channels among their labels.
        joins: Pairs of label arrays, shape `(n,)` each, that are one channel position by position.
        freezes: What may not be cut.
        captured: Tensors that subgraphs read.
    """

    graph: ModelGraph
    axes: dict[str, Axes] = field(default_factory=dict)
    slices: dict[Operand, Axes] = field(default_factory=dict)
    slots: dict[Slot, Labels] = field(default_factory=dict)
    joins: list[tuple[Labels, Labels]] = field(default_factory=list)
    freezes: list[Freeze] = field(default_factory=list)
    n_labels: int = 0
    captured: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.captured = frozenset(name for node in self.graph.nodes for name in node.captures)

    def fresh(self, n: int) -> Labels:
        """Returns `n` labels that nothing carries yet.

        Raises:
            ValueError: There are more than any network has channels.
        """
        if not 0 <= n <= MAX_LABELS:
            raise ValueError(f"{n} channels on one axis")
        made = np.arange(self.n_labels, self.n_labels + n, dtype=np.int64)
        self.n_labels += n
        return made

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Returns the concrete shape of a tensor, or None."""
        return self.graph.shapes.get(name)

    def constant(self, name: str) -> Array | None:
        """Returns the value of a constant tensor, or None."""
        return self.graph.constant(name)

    def read(self, name: str) -> Axes:
        """Returns the labelled axes of a tensor; empty where it has none."""
        return self.axes.get(name, {}) if name else {}

    def emit(self, name: str, axes: Mapping[int, Labels]) -> None:
        """Labels a tensor that a node makes."""
        if name and axes:
            self.axes[name] = dict(axes)

    def join(self, a: Labels, b: Labels) -> None:
        """Makes the channels of two axes of one length one, position by position."""
        self.joins.append((a, b))

    def cut(self, at: Operand, axis: int, labels: Labels) -> None:
        """Declares that a constant operand loses the removed channels along an axis."""
        known = self.slices.setdefault(at, {}).setdefault(axis, labels)
        if known is not labels:
            self.join(known, labels)

    def count(self, node: Node, where: int | str, position: int | None, labels: Labels) -> None:
        """Declares that an integer of a node is the number of channels kept among the labels."""
        known = self.slots.setdefault(Slot(node.index, where, position), labels)
        if known is not labels:
            self.join(known, labels)

    def freeze(self, node: Node, labels: Labels, reason: str) -> None:
        """Keeps all channels that carry the labels, and remembers why."""
        if labels.size:
            self.freezes.append(Freeze(node.index, reason, labels))

    def freeze_inputs(self, node: Node, reason: str) -> None:
        """Keeps every channel that a node reads."""
        for name in (*node.inputs, *node.captures):
            for labels in self.read(name).values():
                self.freeze(node, labels, reason)


def classes(n_labels: int, joins: list[tuple[Labels, Labels]]) -> Labels:
    """Returns the class of every label: the smallest label it is joined with.

    Args:
        n_labels: Number of labels.
        joins: Pairs of equally long label arrays.

    Returns:
        Shape `(n_labels,)`, int64.

    Example:
        >>> classes(4, [(np.array([0, 1]), np.array([2, 1]))]).tolist()
        [0, 1, 0, 3]
    """
    parent = list(range(n_labels))

    def find(label: int) -> int:
        while parent[label] != label:
            parent[label] = parent[parent[label]]
            label = parent[label]
        return label

    for first, second in joins:
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            root, other = find(a), find(b)
            if root != other:
                parent[max(root, other)] = min(root, other)
    return np.array([find(label) for label in range(n_labels)], dtype=np.int64)
