"""Channel labels: an array of integers rides on every axis whose channels may be cut.

Two axes that carry the same label lose that channel together. Joining labels is a union-find; a label that meets
something which must not change (a graph output, a mixing operator) is frozen, and with it its whole class.

Where a Reshape splits a channel axis (channel shuffle, attention heads, the blocks of a GroupNormalization) the
labels lie over several axes of the new tensor at once. What is kept must then be a product of the axes, so all
labels along all but one of them must go together. Which axis stays free is decided by what comes later: an operator
that mixes along an axis ties the labels along it (`Labeller.squash`), and what nothing has decided is settled in the
end (`bocr_onnx.groups.settle`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from bocr_onnx.graph import Array, ModelGraph, Node, Operand
from bocr_onnx.groups.records import Block, Default, Entry, Equality, Freeze, Labels, RuleError, Slot, Work

MAX_LABELS = 1 << 20

MAX_REPEATED = 1 << 22
"""Labels along one axis after repetition; more would be an image, not channels."""

MANY = 1 << 12
"""Joins of more pairs than this are stripped of repetitions first."""


@dataclass(slots=True)
class Labeller:
    """What the operator rules write on while the labels travel through the graph.

    Attributes:
        graph: The model.
        tensors: Tensor name -> blocks, no axis in two of them.
        entries: Name of an integer tensor -> what each of its elements counts, where shapes are computed.
        taken: Operands whose entries a rule has looked after.
        pins: Operands that must say the same whatever is cut, although the model computes them from shapes.
        slices: Constant operand -> labels along the axes it is cut along.
        sources: Weight of an operator that makes channels -> axis of its outputs.
        sinks: Weight of an operator that sums over channels -> axes that are summed over.
        reads: Read of a computed operand that sums over its channels -> axis and labels.
        work: Node -> its multiply-accumulates.
        slots: Integers that follow what is kept, with rows.
        defaults: What an omitted operand or attribute would have to say before it is cut.
        joins: Pairs of label arrays of one shape that are one channel position by position.
        freezes: What may not be cut.
        equalities: What must hold for computed shapes to follow.
    """

    graph: ModelGraph
    tensors: dict[str, tuple[Block, ...]] = field(default_factory=dict)
    entries: dict[str, tuple[Entry, ...]] = field(default_factory=dict)
    taken: set[Operand] = field(default_factory=set)
    pins: set[Operand] = field(default_factory=set)
    slices: dict[Operand, dict[int, Labels]] = field(default_factory=dict)
    sources: dict[Operand, int] = field(default_factory=dict)
    sinks: dict[Operand, tuple[int, ...]] = field(default_factory=dict)
    reads: dict[Operand, tuple[int, Labels]] = field(default_factory=dict)
    work: dict[int, tuple[Work, ...]] = field(default_factory=dict)
    slots: dict[Slot, Labels] = field(default_factory=dict)
    defaults: dict[tuple[int, int | str], Default] = field(default_factory=dict)
    joins: list[tuple[Labels, Labels]] = field(default_factory=list)
    freezes: list[Freeze] = field(default_factory=list)
    equalities: list[Equality] = field(default_factory=list)
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

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the concrete shape of a tensor.

        Raises:
            RuleError: It is unknown.
        """
        found = self.graph.shapes.get(name)
        if found is None:
            raise RuleError("a shape is unknown")
        return found

    def constant(self, name: str) -> Array | None:
        """Returns the value of a constant tensor, or None."""
        return self.graph.constant(name)

    def read(self, name: str) -> tuple[Block, ...]:
        """Returns the blocks of a tensor; none where it has no labels."""
        return self.tensors.get(name, ()) if name else ()

    def emit(self, name: str, blocks: Iterable[Block]) -> None:
        """Labels a tensor that a node makes."""
        kept = tuple(b for b in blocks if b.axes and b.labels.size)
        if name and kept:
            self.tensors[name] = kept

    def repeated(self, labels: Labels, times: Sequence[int]) -> Labels:
        """Returns labels repeated along their axes.

        Raises:
            RuleError: There are too many.
        """
        if labels.size * math.prod(times) > MAX_REPEATED:
            raise RuleError("the channels are repeated too often")
        return np.tile(labels, times)

    def join(self, a: Labels, b: Labels) -> None:
        """Makes the channels of two label arrays of one shape one, position by position.

        Raises:
            ValueError: The shapes differ.
        """
        if a.shape != b.shape:
            raise ValueError(f"axes of {a.shape} and {b.shape} channels")
        if a is b:
            return
        a, b = a.reshape(-1), b.reshape(-1)
        if a.size > MANY:
            a, b = np.divmod(np.unique(a * self.n_labels + b), self.n_labels)
        self.joins.append((a, b))

    def collapse(self, block: Block, axis: int) -> Labels:
        """Ties the labels of each entry of an axis; returns one label per entry, shape `(n,)`."""
        rows = block.rows(axis)
        first = rows[:, 0]
        if rows.shape[1] > 1:
            self.join(np.repeat(first[:, None], rows.shape[1] - 1, axis=1), rows[:, 1:])
        return first

    def squash(
        self, node: Node, block: Block, axes: Collection[int], reason: str, *, keeps: bool = False
    ) -> Block | None:
        """Returns a block without axes along which an operator mixes.

        The labels along them are tied where the block lies on other axes as well, and frozen where it does not.

        Args:
            node: The operator.
            block: Block of one of its inputs.
            axes: The axes.
            reason: Reason for the refusal.
            keeps: Whether the operator leaves the axes as they are: frozen labels travel on, so that a refusal
                knows all it costs.
        """
        rest = tuple(a for a in block.axes if a not in axes)
        if not rest:
            self.freeze(node, block.labels, reason)
            return block if keeps else None
        if rest == block.axes:
            return block
        order = [block.axes.index(a) for a in (*rest, *(a for a in block.axes if a in axes))]
        moved = block.labels.transpose(order)
        inner = moved.reshape(*moved.shape[: len(rest)], -1)
        first = inner[..., 0]
        self.join(np.repeat(first[..., None], inner.shape[-1] - 1, axis=-1), inner[..., 1:])
        return Block(rest, first)

    def along(self, node: Node, name: str, axis: int, reason: str) -> Labels | None:
        """Returns the labels on one axis of a tensor, or None; what lies on others is mixed by the operator."""
        found = None
        for block in self.read(name):
            if axis in block.axes:
                found = self.collapse(block, axis)
            else:
                self.freeze(node, block.labels, reason)
        return found

    def cut(self, at: Operand, axis: int, labels: Labels) -> None:
        """Declares that a constant operand loses the removed channels along an axis.

        Raises:
            ValueError: The axis has another length.
        """
        array = self.graph.operand(at)
        if array is not None and array.shape[axis] != len(labels):
            raise ValueError(f"an operand of {array.shape} meets {len(labels)} channels")
        self.join(self.slices.setdefault(at, {}).setdefault(axis, labels), labels)
        source = self.graph.rounded(self.graph.nodes[at[0]].input(at[1]))
        if source is not None and array is not None:
            self._cut_quantized(source, axis % array.ndim, labels)

    def _cut_quantized(self, source: Node, axis: int, labels: Labels) -> None:
        """Cuts what a constant is dequantized from: the integers, and scales and zero points along the axis."""
        if source.attributes.get("block_size", 0):
            raise RuleError("one scale covers a block of channels")
        self.cut((source.index, 0), axis, labels)
        rank = len(self.shape(source.inputs[0]))
        for position in range(1, len(source.inputs)):
            scales = self.constant(source.input(position))
            if scales is not None and scales.size > 1 and int(source.attributes.get("axis", 1)) % rank == axis:
                self.cut((source.index, position), 0, labels)

    def consume(self, node: Node, position: int, axis: int, labels: Labels) -> None:
        """Declares that an operator sums over the channels of a computed operand."""
        self.reads[(node.index, position)] = (axis, labels)

    def count(self, node: Node, where: int | str, position: int | None, rows: Labels) -> None:
        """Declares that an integer of a node is the number of entries kept among the rows, shape `(n,)` or `(n, m)`.

        Raises:
            ValueError: The same integer counts another number of entries.
        """
        rows = rows if rows.ndim == 2 else rows[:, None]
        self.join(self.slots.setdefault(Slot(node.index, where, position), rows), rows)

    def freeze(self, node: Node, labels: Labels, reason: str) -> None:
        """Keeps all channels that carry the labels, and remembers why."""
        if labels.size:
            self.freezes.append(Freeze(node.index, reason, np.unique(labels)))

    def freeze_inputs(self, node: Node, reason: str) -> None:
        """Keeps every channel that a node reads or counts."""
        self.freezes.append(Freeze(node.index, reason, np.zeros(0, dtype=np.int64)))
        for name in (*node.inputs, *node.captures):
            for block in self.read(name):
                self.freeze(node, block.labels, reason)
            self.freeze_widths(node, name)

    def freeze_widths(self, node: Node, name: str) -> None:
        """Keeps the number of channels that an integer tensor counts."""
        for entry in self.entries.get(name, ()):
            self.freeze_entry(node, entry)

    def freeze_entry(self, node: Node, entry: Entry) -> None:
        """Keeps the number of channels that an integer counts."""
        if entry.width is not None:
            self.equalities.append(Equality(node.index, entry.width, entry.times, None))

    def entries_of(self, node: Node, position: int) -> tuple[Entry, ...] | None:
        """Returns what the elements of an integer operand count, None where they are not known beforehand."""
        name = node.input(position)
        self.taken.add((node.index, position))
        constant = self.constant(name)
        if constant is not None:
            flat = constant.reshape(-1).tolist()
            return tuple(Entry(int(v), slots=((Slot(node.index, position, i), int(v)),)) for i, v in enumerate(flat))
        if name in self.entries:
            return self.entries[name]
        value = self.graph.values.get(name)
        return None if value is None else tuple(Entry(int(v)) for v in value.reshape(-1).tolist())

    def counts(self, name: str) -> bool:
        """Returns whether an element of an integer tensor counts channels."""
        return any(entry.width is not None for entry in self.entries.get(name, ()))

    def counted(self, node: Node, position: int) -> tuple[Entry, ...]:
        """Returns what the elements of an operand of shape arithmetic count.

        A constant that the model computes from widths is a constant to whoever goes on with sizes of the input, and
        a count only to what is constant itself.

        Raises:
            RuleError: They are not known.
        """
        name = node.input(position)
        traced = self.constant(node.outputs[0]) is not None
        if name in self.entries and (traced or self.constant(name) is None):
            self.taken.add((node.index, position))
            return self.entries[name]
        found = self.entries_of(node, position)
        if found is None:
            raise RuleError("the number of channels is used in arithmetic")
        return found

    def follow(self, node: Node, entry: Entry | None, rows: Labels) -> bool:
        """Makes an integer follow the kept entries of an axis; returns whether it can."""
        if entry is None:
            return False
        rows = rows if rows.ndim == 2 else rows[:, None]
        if entry.width is not None:
            self.equalities.append(Equality(node.index, entry.width, entry.times, rows))
            return True
        for slot, value in entry.slots:
            if value == len(rows):
                self.join(self.slots.setdefault(slot, rows), rows)
                return True
        return False


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
    parent = np.arange(n_labels, dtype=np.int64)
    if not joins:
        return parent
    first, second = (np.concatenate([pair[i] for pair in joins]) for i in (0, 1))
    while True:
        roots = np.stack([parent[first], parent[second]])
        apart = roots[0] != roots[1]
        if not apart.any():
            return parent
        first, second, roots = first[apart], second[apart], roots[:, apart]
        np.minimum.at(parent, roots.max(axis=0), roots.min(axis=0))
        while not np.array_equal(parent, parent[parent]):
            parent = parent[parent]
