"""Where several tensors meet, axis by axis: the algebra under element-wise operators and under products.

Every axis of every operand is given a letter, as in Einstein's notation; an axis that broadcasts has none.

    y[n, c, p] = a[n, c, p] + b[c]            element-wise: every letter stays
    y[n, m] = sum_k a[n, k] b[k, m]           a product: letter k is summed over

Labels on one letter are joined across the operands; a constant operand is cut along a letter that carries labels; an
operand that varies along it without labels of its own freezes them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import reduce

from bocr_onnx.graph import Node
from bocr_onnx.groups.labels import Labeller
from bocr_onnx.groups.records import Block, Labels, on

Letters = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Term:
    """An operand and the letter of each of its axes, None where it broadcasts."""

    position: int
    letters: Letters


def broadcast_letters(shape: tuple[int, ...], out: tuple[int, ...]) -> Letters:
    """Returns the letters of an operand under numpy's broadcasting; letter `i` is axis `i` of the output."""
    shift = len(out) - len(shape)
    return tuple(i + shift if size == out[i + shift] else None for i, size in enumerate(shape))


def meet(node: Node, at: Labeller, terms: Sequence[Term], summed: Collection[int] = ()) -> list[Block]:
    """Returns the blocks of the letters, after joining and cutting what meets on them.

    Args:
        node: The operator.
        at: Where labels are read and joined.
        terms: Its operands.
        summed: Letters that the operator sums over.
    """
    found = [block for term in terms for block in _lettered(node, at, term)]
    found = [_divided(node, at, block, summed) for block in found]
    return [_follow(node, at, block, terms) for block in _merged(at, found)]


def _lettered(node: Node, at: Labeller, term: Term) -> list[Block]:
    made = []
    for block in at.read(node.input(term.position)):
        lost = [a for a in block.axes if term.letters[a] is None]
        kept = at.squash(node, block, lost, "")
        if kept is not None:
            made.append(kept.placed({a: letter for a, letter in enumerate(term.letters) if letter is not None}))
    return made


def _divided(node: Node, at: Labeller, block: Block, summed: Collection[int]) -> Block:
    """Returns a block that lies either on summed letters (one of them) or on letters that stay."""
    inside = [letter for letter in block.axes if letter in summed]
    if len(inside) == len(block.axes):
        return on(letter := _longest(block), at.collapse(block, letter))
    reduced = at.squash(node, block, inside, "")
    assert reduced is not None
    return reduced


def _merged(at: Labeller, blocks: list[Block]) -> list[Block]:
    """Returns blocks no two of which share a letter."""
    result: list[Block] = []
    for block in blocks:
        overlapping = [other for other in result if set(other.axes) & set(block.axes)]
        result = [other for other in result if not set(other.axes) & set(block.axes)]
        result.append(reduce(lambda one, other: _joined(at, other, one), overlapping, block))
    return result


def _joined(at: Labeller, a: Block, b: Block) -> Block:
    if a.axes == b.axes:
        at.join(a.labels, b.labels)
        return a
    common = [letter for letter in a.axes if letter in b.axes]
    letter = max(common, key=lambda i: len(a.rows(i)))
    labels = at.collapse(a, letter)
    at.join(labels, at.collapse(b, letter))
    return on(letter, labels)


def _longest(block: Block, among: Collection[int] = ()) -> int:
    return max(among or block.axes, key=lambda letter: len(block.rows(letter)))


def _follow(node: Node, at: Labeller, block: Block, terms: Sequence[Term]) -> Block:
    for term in terms:
        name = node.input(term.position)
        own = {letter: axis for axis, letter in enumerate(term.letters) if letter in block.axes}
        if all(_carries(at, name, axis) for axis in own.values()):
            continue
        own = {letter: axis for letter, axis in own.items() if at.shape(name)[axis] > 1}
        if not own:
            continue
        if at.constant(name) is not None:
            if len(block.axes) > 1:
                letter = _longest(block, own)
                block = on(letter, at.collapse(block, letter))
            at.cut((node.index, term.position), own[block.axes[0]], block.labels)
            continue
        lacking = [letter for letter, axis in own.items() if not _carries(at, name, axis)]
        kept = at.squash(node, block, lacking, f"it meets {name!r}, whose channels cannot be cut", keeps=True)
        assert kept is not None
        block = kept
    return block


def _carries(at: Labeller, name: str, axis: int) -> bool:
    return any(axis in block.axes for block in at.read(name))


def labels_on(blocks: Sequence[Block], letter: int) -> Labels | None:
    """Returns the labels of a letter that a block lies on alone, or None."""
    return next((b.labels for b in blocks if b.axes == (letter,)), None)
