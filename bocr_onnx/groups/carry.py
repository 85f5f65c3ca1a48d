"""How a Reshape moves what lies along axes: both shapes are products of the same factors, grouped differently.

    (2, 58 * 9) and (2 * 58, 9) have the factors 2, 58, 9

A factor is never split again, so labels along axes of the old shape become labels along axes of the new one by
reshaping their own array to the factors, and grouping these anew. Axes whose sizes have no common factors, such as
(6, 4) -> (4, 6), are mixed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from bocr_onnx.groups.labels import MAX_REPEATED
from bocr_onnx.groups.records import Block, Labels, RuleError

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Carry:
    """A move from one shape to another.

    Attributes:
        factors: Sizes, in order.
        before: For every old axis the factors it is made of.
        after: For every new axis the factors it is made of.
        mixed: Old axes that are not made of whole factors.
    """

    factors: tuple[int, ...]
    before: tuple[tuple[int, ...], ...]
    after: tuple[tuple[int, ...], ...]
    mixed: frozenset[int]

    def __call__(self, block: Block) -> Block:
        """Returns the labels over the new axes along which they vary; over none where the block has no factors.

        Raises:
            RuleError: They would be repeated beyond `MAX_REPEATED`.
        """
        own, apart = self._varying(block)
        axes = tuple(axis for axis, made in enumerate(self.after) if set(made) & set(own))
        wanted = [f for axis in axes for f in self.after[axis]]
        if self._n_labels(own) > MAX_REPEATED:
            raise RuleError("the channels are merged with too large an axis")
        spread = np.broadcast_to(
            apart.reshape([self.factors[f] if f in own else 1 for f in wanted]), [self.factors[f] for f in wanted]
        )
        return Block(axes, spread.reshape([math.prod(self.factors[f] for f in self.after[axis]) for axis in axes]))

    def crowded(self, block: Block) -> tuple[int, ...]:
        """Returns the factors along which a block must be tied, so that it is not repeated beyond `MAX_REPEATED`.

        They lie on the new axes that repeat the labels most. None are returned where none would be left.
        """
        own, _ = self._varying(block)
        merged = [
            [f for f in made if f in own] for made in sorted(self.after, key=lambda made: -self._repeats(made, own))
        ]
        tied: list[int] = []
        while merged and self._n_labels([f for f in own if f not in tied]) > MAX_REPEATED:
            tied += merged.pop(0)
        return tuple(tied) if len(tied) < len(own) else ()

    def split(self, axis: int) -> tuple[int, ...]:
        """Returns the sizes of the factors of an old axis."""
        return tuple(self.factors[f] for f in self.before[axis])

    def _repeats(self, made: Sequence[int], own: Sequence[int]) -> int:
        return math.prod(self.factors[f] for f in made if f not in own)

    def _n_labels(self, own: Sequence[int]) -> int:
        """Returns the size of the new axes that labels along some factors lie on."""
        return math.prod(self.factors[f] for made in self.after if set(made) & set(own) for f in made)

    def _varying(self, block: Block) -> tuple[list[int], Labels]:
        """Returns the factors along which labels vary, one of them at least, and the labels along these."""
        own = [f for axis in block.axes for f in self.before[axis]]
        labels = block.labels.reshape([self.factors[f] for f in own])
        for i in reversed(range(len(own))):
            first = labels.take([0], axis=i)
            if len(own) > 1 and bool((labels == first).all()):
                labels = first.squeeze(i)
                del own[i]
        return own, labels


def carry(before: Shape, after: Shape) -> Carry:
    """Returns how a Reshape moves what lies along axes.

    Args:
        before: The old shape, of positive sizes.
        after: The new shape, of as many elements.

    Raises:
        RuleError: The shapes do not fit, or are empty.

    Example:
        >>> carry((2, 116, 9), (2, 2, 58, 9)).after
        ((0,), (1,), (2,), (3,))
    """
    if math.prod(before) != math.prod(after) or 0 in before:
        raise RuleError(f"a Reshape from {before} to {after} is not one")
    factors: list[int] = []
    old: list[tuple[int, ...]] = [()] * len(before)
    new: list[tuple[int, ...]] = [()] * len(after)
    mixed: set[int] = set()
    for inside, outside in _segments(before, after):
        found = _factors([before[a] for a in inside], [after[a] for a in outside])
        if found is None:
            mixed.update(inside)
            continue
        for axes, target, shape in ((inside, old, before), (outside, new, after)):
            _assign(found, len(factors), axes, target, shape)
        factors.extend(found)
    return Carry(tuple(factors), tuple(old), tuple(new), frozenset(mixed))


def _segments(before: Shape, after: Shape) -> Iterator[tuple[list[int], list[int]]]:
    """Yields the shortest runs of old and new axes with equal products; axes of one entry are in none."""
    old = [axis for axis, size in enumerate(before) if size > 1]
    new = [axis for axis, size in enumerate(after) if size > 1]
    while old:
        inside, outside = [old.pop(0)], [new.pop(0)]
        a, b = before[inside[0]], after[outside[0]]
        while a != b:
            if a < b:
                inside.append(old.pop(0))
                a *= before[inside[-1]]
            else:
                outside.append(new.pop(0))
                b *= after[outside[-1]]
        yield inside, outside


def _factors(a: Sequence[int], b: Sequence[int]) -> list[int] | None:
    """Returns the common refinement of two products, or None where there is none."""
    ends = sorted({*np.cumprod([1, *a]).tolist(), *np.cumprod([1, *b]).tolist()})
    if any(high % low for low, high in pairwise(ends)):
        return None
    return [high // low for low, high in pairwise(ends)]


def _assign(
    found: Sequence[int], offset: int, axes: Sequence[int], target: list[tuple[int, ...]], shape: Shape
) -> None:
    position = 0
    for axis in axes:
        rest, mine = shape[axis], []
        while rest > 1:
            mine.append(offset + position)
            rest //= found[position]
            position += 1
        target[axis] = tuple(mine)
