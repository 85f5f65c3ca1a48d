"""What the rules and the labeller write down."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bocr_onnx.graph import Array

Labels = npt.NDArray[np.int64]
"""Along one axis, shape `(n,)`, int64. As rows, shape `(n, m)`: an entry of the axis stays if any of its row does."""

EVERY = -1
"""Position of a slot whose operand holds positions on an axis throughout."""


class RuleError(ValueError):
    """A rule does not apply: the text says why, and becomes the reason of a refusal."""


@dataclass(frozen=True, slots=True)
class Block:
    """Labels that lie over one or more axes of a tensor.

    Attributes:
        axes: Ascending.
        labels: One axis of the array per axis of the tensor, shape: the sizes of these axes.
    """

    axes: tuple[int, ...]
    labels: Labels

    def rows(self, axis: int) -> Labels:
        """Returns the labels of every entry of an axis, shape `(n, m)`."""
        moved = np.moveaxis(self.labels, self.axes.index(axis), 0)
        return moved.reshape(len(moved), math.prod(moved.shape[1:]))

    def placed(self, where: Mapping[int, int]) -> Block:
        """Returns the block with its axes renumbered."""
        new = [where[a] for a in self.axes]
        order = sorted(range(len(new)), key=new.__getitem__)
        return Block(tuple(new[i] for i in order), self.labels.transpose(order))

    def picked(self, axis: int, positions: Labels | slice) -> Block:
        """Returns the block with some entries of an axis only."""
        where: list[Labels | slice] = [slice(None)] * len(self.axes)
        where[self.axes.index(axis)] = positions
        return Block(self.axes, self.labels[tuple(where)])


def on(axis: int, labels: Labels) -> Block:
    """Returns the block of one axis."""
    return Block((axis,), labels)


@dataclass(frozen=True, slots=True)
class Slot:
    """Integers that follow what is kept: of an operand (input number) or an attribute (name) of a node.

    Attributes:
        node: Index of the node.
        where: Input number or attribute name.
        position: Which element becomes the number of kept entries among the labels; None where the attribute is
            one integer; `EVERY` where all elements are positions on the axis that carries the labels.
    """

    node: int
    where: int | str
    position: int | None


@dataclass(frozen=True, slots=True)
class Default:
    """What an omitted operand or attribute would have to say.

    Attributes:
        value: Its integers.
        replaces: Attribute that must go once it is said; empty where none.
    """

    value: Array
    replaces: str = ""


@dataclass(frozen=True, slots=True)
class Work:
    """Multiply-accumulates of a node: so many for every entry of a tensor.

    Attributes:
        tensor: Whose entries they are spent on.
        times: How many for each entry.
        inner: Labels (channels, in a `GroupIndex`) along the axes that these are summed over; `times` is
            proportional to how many of each stay.
    """

    tensor: str
    times: int
    inner: tuple[Labels, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """What one element of an integer tensor counts.

    Attributes:
        value: Value of the original, at the concrete shapes.
        width: Rows of an axis: the element is `times` the number of those that stay. None where it counts none.
        times: Factor of the width.
        slots: Constants that are factors of the element, with their values: any of them can be rewritten.
    """

    value: int
    width: Labels | None = None
    times: float = 1.0
    slots: tuple[tuple[Slot, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Freeze:
    """Labels that were frozen, and why."""

    node: int
    reason: str
    labels: Labels


@dataclass(frozen=True, slots=True)
class Equality:
    """A promise that an integer the model computes equals the kept entries of an axis.

    Attributes:
        node: Index of the node that relies on it.
        width: Rows that the integer counts.
        times: How many of the axis there are per counted one.
        rows: Rows of the axis; `None` where the integer must not change at all.
    """

    node: int
    width: Labels
    times: float
    rows: Labels | None
