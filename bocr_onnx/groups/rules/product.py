"""Products consume the labels they sum over and emit fresh ones for what only a weight brings in.

    Y = alpha * A' B' + beta * C                    Gemm
    Y[..., m, n] = sum_k A[..., m, k] B[..., k, n]  MatMul, with a constant on either side or none
    Y[out] = sum A[in1] B[in2] ...                  Einsum

QGemm, QLinearMatMul and MatMulInteger compute the same on A - A_zero and B - B_zero.

Where both factors are computed (attention) the channels that are summed over are joined, and labels of the letters
that stay, such as the heads, pass on.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from bocr_onnx.graph import Node, operand_positions, scale_positions
from bocr_onnx.groups.labels import Labeller
from bocr_onnx.groups.records import Block, RuleError, Work, on
from bocr_onnx.groups.rules.meeting import Letters, Term, labels_on, meet
from bocr_onnx.groups.rules.registry import rule


@rule("QGemm", domain="com.microsoft")
@rule("Gemm")
def gemm(node: Node, at: Labeller) -> None:
    """Carries labels through Gemm; letters m, n, k are 0, 1, 2."""
    first, second, *rest = operand_positions(node)
    a = Term(first, (2, 0) if node.attributes.get("transA", 0) else (0, 2))
    b = Term(second, (1, 2) if node.attributes.get("transB", 0) else (2, 1))
    addends = [*_scales(node, at, a, 0), *_scales(node, at, b, 1)]
    for position in rest:
        shape, out = at.shape(node.inputs[position]), at.shape(node.outputs[0])
        letters = tuple(i if size == out[i] else None for i, size in zip(range(2 - len(shape), 2), shape, strict=True))
        addends.append(Term(position, letters))
    product(node, at, [a, b], (0, 1), addends)


@rule("FusedMatMul", domain="com.microsoft")
@rule("MatMul", "MatMulInteger", "QLinearMatMul")
def matmul(node: Node, at: Labeller) -> None:
    """Carries labels through MatMul; the letters are the axes of the output, and one more that is summed over."""
    if node.attributes.get("transBatchA", 0) or node.attributes.get("transBatchB", 0):
        raise RuleError("its batch is transposed")
    positions = operand_positions(node)
    first, second = (at.shape(node.inputs[i]) for i in positions)
    batch = max(len(first), len(second)) - 2
    rows, columns, inner = batch, batch + 1, batch + 2
    sizes = [1] * max(batch, 0)
    for shape in (first, second):
        for i, size in enumerate(reversed(shape[:-2])):
            sizes[-1 - i] = max(sizes[-1 - i], size)

    def letters(shape: tuple[int, ...], last: tuple[int, int]) -> Letters:
        if len(shape) == 1:
            return (inner,)
        shift = batch - (len(shape) - 2)
        return (*(i + shift if s == sizes[i + shift] else None for i, s in enumerate(shape[:-2])), *last)

    out = tuple(range(batch)) if batch > 0 else ()
    out += (rows,) if len(first) > 1 else ()
    out += (columns,) if len(second) > 1 else ()
    left, right = (rows, inner), (inner, columns)
    a = Term(positions[0], letters(first, left[::-1] if node.attributes.get("transA", 0) else left))
    b = Term(positions[1], letters(second, right[::-1] if node.attributes.get("transB", 0) else right))
    product(node, at, [a, b], out, [*_scales(node, at, a, rows), *_scales(node, at, b, columns)])


def _scales(node: Node, at: Labeller, factor: Term, letter: int) -> list[Term]:
    """Returns the scale and zero point of a factor: one for all of it, or one for each entry of a letter.

    They are vectors, or as many axes as the factor has, all but those that vary of size one.
    """
    ranks = [(p, len(at.shape(node.inputs[p]))) for p in scale_positions(node, factor.position)]
    return [Term(p, (letter,) if rank == 1 else factor.letters[-rank:] if rank else ()) for p, rank in ranks]


@rule("Einsum")
def einsum(node: Node, at: Labeller) -> None:
    """Carries labels through Einsum."""
    equation = str(node.attributes["equation"]).replace(" ", "")
    left, arrow, right = equation.partition("->")
    subscripts = left.split(",")
    if len(subscripts) != len(node.inputs) or not arrow:
        raise RuleError("the equation leaves its output to be guessed")
    shapes = [at.shape(name) for name in node.inputs]
    spread = max(len(s) - len(sub.replace("...", "")) for s, sub in zip(shapes, subscripts, strict=True))
    out = _spelled(right, spread, spread)
    sizes: dict[int, int] = {}
    spelled = [
        _spelled(sub, len(s) - len(sub.replace("...", "")), spread) for s, sub in zip(shapes, subscripts, strict=True)
    ]
    for shape, names in zip(shapes, spelled, strict=True):
        if len(set(names)) < len(names):
            raise RuleError("an index is repeated in one operand")
        for size, name in zip(shape, names, strict=True):
            sizes[name] = max(sizes.get(name, 1), size)
    terms = [
        Term(i, tuple(n if s == sizes[n] else None for s, n in zip(shape, names, strict=True)))
        for i, (shape, names) in enumerate(zip(shapes, spelled, strict=True))
    ]
    product(node, at, terms, out)


def _spelled(subscript: str, n_dots: int, most: int) -> tuple[int, ...]:
    """Returns letters as numbers; the axes after `...` are numbered from the right, below the letters."""
    before, dots, after = subscript.partition("...")
    inside = range(most - n_dots, most) if dots else range(0)
    return (*(most + ord(c) for c in before), *inside, *(most + ord(c) for c in after))


def product(
    node: Node, at: Labeller, factors: Sequence[Term], out: tuple[int, ...], addends: Sequence[Term] = ()
) -> None:
    """Carries labels through a sum of products.

    Args:
        node: The operator.
        at: Where labels are read and joined.
        factors: Its factors; letters that are not in `out` are summed over.
        out: Letters of the output.
        addends: What is added to the sum, and the scales and zero points of the factors.
    """
    summed = {letter for term in factors for letter in term.letters if letter is not None} - set(out)
    blocks = meet(node, at, factors, summed)
    for term in factors:
        _consume(node, at, term, blocks, summed)
    made = [b for b in blocks if not set(b.axes) & summed] + _fresh(node, at, factors, out)
    _cut_addends(node, at, made, addends)
    _note_work(node, at, factors, blocks, summed)
    at.emit(node.outputs[0], [b.placed({letter: axis for axis, letter in enumerate(out)}) for b in made])


def _consume(node: Node, at: Labeller, term: Term, blocks: Sequence[Block], summed: set[int]) -> None:
    inside = [(axis, letter) for axis, letter in enumerate(term.letters) if letter in summed]
    if at.constant(node.inputs[term.position]) is not None:
        at.sinks[(node.index, term.position)] = tuple(axis for axis, _ in inside)
        return
    labelled = [(axis, labels) for axis, i in inside if i is not None and (labels := labels_on(blocks, i)) is not None]
    for axis, labels in labelled[:1]:
        at.consume(node, term.position, axis, labels)
    for _, labels in labelled[1:]:
        at.freeze(node, labels, f"{node.op} sums over two axes of channels")


def _note_work(
    node: Node, at: Labeller, factors: Sequence[Term], blocks: Sequence[Block], summed: Collection[int]
) -> None:
    sizes: dict[int, int] = {}
    for term in factors:
        shape = at.graph.shapes.get(node.inputs[term.position], ())
        inside = [(i, size) for i, size in zip(term.letters, shape, strict=False) if i is not None and i in summed]
        sizes.update(inside)
    inner = tuple(labels for letter in sizes if (labels := labels_on(blocks, letter)) is not None)
    at.work[node.index] = (Work(node.outputs[0], math.prod(sizes.values()), inner),)


def _fresh(node: Node, at: Labeller, factors: Sequence[Term], out: tuple[int, ...]) -> list[Block]:
    """Returns fresh labels for the letters of the output that only constant factors have."""
    made = []
    constant = [t for t in factors if at.constant(node.inputs[t.position]) is not None]
    if len(constant) == len(factors):
        raise RuleError("all factors are constant")
    computed = {letter for t in factors if t not in constant for letter in t.letters}
    for term in constant:
        for axis, letter in enumerate(term.letters):
            if letter is None or letter in computed or letter not in out:
                continue
            computed.add(letter)
            labels = at.fresh(at.shape(node.inputs[term.position])[axis])
            at.sources[(node.index, term.position)] = axis
            for other in constant:
                if letter in other.letters:
                    at.cut((node.index, other.position), other.letters.index(letter), labels)
            made.append(on(letter, labels))
    return made


def _cut_addends(node: Node, at: Labeller, blocks: Sequence[Block], addends: Sequence[Term]) -> None:
    """Cuts the constants that are added to a product, and its scales, along its labelled letters."""
    for term in addends:
        name = node.inputs[term.position]
        shape = at.shape(name)
        if at.constant(name) is None and (at.read(name) or max(shape, default=1) > 1):
            raise RuleError("what is added to the product, or its scale, is computed")
        for block in blocks:
            for axis, letter in enumerate(term.letters):
                if letter in block.axes and shape[axis] > 1:
                    assert letter is not None
                    at.cut((node.index, term.position), axis, at.collapse(block, letter))
