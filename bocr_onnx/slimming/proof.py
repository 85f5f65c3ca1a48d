"""The proof of a cut: slim model == original with the removed channels zeroed where they are consumed.

Both are run on the same inputs. The masked original takes the slim model's weights where these were changed by
recovery or training, spread to the original shape, so that the identity holds for every emitted model. What is compared
are functions, not kernels: quantized weights as the numbers they stand for, activations without their rounding, which
would turn a difference of the last bit into a whole step, half precision in single precision, and what follows a
decision given the same decision (`decisions`); that the file itself runs is checked beside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import onnx
from onnx import ModelProto

from bocr_onnx.errors import ModelError, ProofError
from bocr_onnx.graph import (
    HALF,
    INTEGER,
    ROUNDING,
    ZERO_POINT,
    Array,
    Edit,
    ModelGraph,
    Operand,
    apply_edit,
    from_proto,
    is_weighted,
    other_feeds,
    random_feeds,
    weight_positions,
    widened,
    with_masks,
    with_outputs,
    without_rounding,
)
from bocr_onnx.groups import GroupIndex
from bocr_onnx.slimming.cut import changed_operands, widen
from bocr_onnx.slimming.decisions import Run, hand_over, keep
from bocr_onnx.slimming.difference import Proof, above_noise, compare, nudged, smallest_scale
from bocr_onnx.slimming.plan import Mask, masked_reads
from bocr_onnx.slimming.stored import stored
from bocr_onnx.slimming.trying import filled, is_finite

MAX_FED_TWICE = 1 << 22
"""Elements of all inputs together: where they are more, the proof feeds one sample instead of two."""

MAX_WITNESSES = 8
"""Inner tensors that are compared beside the outputs."""


def masked_original(index: GroupIndex, mask: Mask, weights: Mapping[Operand, Array]) -> ModelProto:
    """Returns the original with the removed channels zeroed at every weighted operator that reads them.

    Args:
        index: Groups of the model.
        mask: Which channels stay.
        weights: Operands that the slim model has changed, in slim shape.
    """
    graph = index.graph
    wide = apply_edit(graph, Edit(widen(index, mask, weights)))
    masks = {}
    for (number, position), (axis, kept) in masked_reads(index, mask).items():
        node = graph.nodes[number]
        read = node.inputs[position]
        zero = node.input(position + ZERO_POINT) if node.op in INTEGER else ""
        other = next((node.inputs[p] for p in weight_positions(node) if p != position), read)
        rank = len(graph.shapes[read if read in graph.shapes else other])
        dtype = next(graph.dtypes[name] for name in (read, zero, other) if name in graph.dtypes)
        ones = np.zeros(len(index.reads[(number, position)][1]), dtype=onnx.helper.tensor_dtype_to_np_dtype(dtype))
        ones[kept] = 1
        masks[(number, position)] = (axis - rank, ones)
    outputs = {next(o for o in node.outputs if o): node.index for node in graph.nodes}
    return with_masks(wide, outputs, masks)


def prove_cut(
    index: GroupIndex,
    mask: Mask,
    slim: ModelProto,
    run: Run,
    *,
    weights: Mapping[Operand, Array] = MappingProxyType({}),
    batch: int | None = None,
    seed: int = 0,
) -> Proof:
    """Checks a slim model and compares it with the masked original; all other weights must be the original's.

    Args:
        index: Groups of the model.
        mask: Which channels stay.
        slim: The slim model.
        run: Runs a model.
        weights: All that recovery has set, as handed to `cut`.
        batch: Used where the model leaves its batch open; None takes 2, and 1 for large inputs such as volumes.
        seed: Seed for the random inputs.

    Raises:
        ModelError: The original itself does not run.
        ProofError: The slim model is invalid, does not run, carries other weights than the original's and those that
            were set, or differs from the masked original.
    """
    index = replace(index, graph=filled(index.graph, run))
    changed = changed_operands(index, mask, _check_valid(index.graph, slim))
    _check_declared(index.graph, changed, {**weights, **stored(index, mask, weights)})
    return _prove(index, mask, slim, changed, Trying(run, batch or _batch(index.graph), seed))


def prove_structure(
    index: GroupIndex,
    mask: Mask,
    slim: ModelProto,
    run: Run,
    *,
    batch: int | None = None,
    seed: int = 0,
) -> Proof:
    """Checks a slim model with weights of its own, e.g. after finetuning, against the masked original with those.

    Args:
        index: Groups of the model.
        mask: Which channels stay.
        slim: The slim model.
        run: Runs a model.
        batch: As in `prove_cut`.
        seed: Seed for the random inputs.

    Raises:
        ModelError: The original itself does not run.
        ProofError: The slim model is invalid, does not run, or differs from the masked original.
    """
    index = replace(index, graph=filled(index.graph, run))
    changed = changed_operands(index, mask, _check_valid(index.graph, slim))
    return _prove(index, mask, slim, changed, Trying(run, batch or _batch(index.graph), seed))


@dataclass(frozen=True, slots=True)
class Trying:
    """How a proof runs models.

    Attributes:
        run: Runs a model.
        batch: Samples of its inputs.
        seed: Seed for the random inputs.
    """

    run: Run
    batch: int
    seed: int


def _prove(
    index: GroupIndex,
    mask: Mask,
    slim: ModelProto,
    changed: Mapping[Operand, Array],
    trying: Trying,
) -> Proof:
    graph = index.graph
    run, batch, seed = trying.run, trying.batch, trying.seed
    inside = _witnesses(index, mask)
    feeds = random_feeds(graph, batch=batch, seed=seed)
    check_runs(graph, feeds, run)
    masked = with_outputs(masked_original(index, mask, changed), inside)
    observed = with_outputs(slim, inside)
    if any(n.op in ROUNDING for n in graph.nodes) and not any(n.op in INTEGER for n in graph.nodes):
        _run_slim(graph, slim, feeds, run)
        masked, observed = without_rounding(masked), without_rounding(observed)
    other = next((o for o in other_feeds(graph, batch=batch, seed=seed) if _takes(graph, o, feeds, run)), None)
    if other is not None:
        check_runs(graph, other, run)
    if any(dtype in HALF for dtype in graph.dtypes.values()):
        _run_slim(graph, slim, feeds, run)
        masked, observed = widened(masked), widened(observed)
        feeds, other = _single(feeds), None if other is None else _single(other)
    proof = _prove_on(index, mask, (masked, observed), feeds, run)
    if other is not None:
        second = _prove_on(index, mask, (masked, observed), other, run)
        proof = max(proof, second, key=lambda p: p.max_rel_diff)
    if not proof.passed:
        raise ProofError(
            f"the slim model of {graph.label} must equal the masked original within {proof.tolerance:g} relative, "
            f"got {proof.max_rel_diff:.3g}; nothing was written",
            hint="This is a bug of bocr-onnx: please report it with the model. `freeze=PATTERN` leaves groups alone.",
        )
    return proof


def _batch(graph: ModelGraph) -> int:
    return 2 if sum(math.prod(graph.shapes.get(name, ())) for name in graph.inputs) <= MAX_FED_TWICE else 1


def _prove_on(
    index: GroupIndex,
    mask: Mask,
    models: tuple[ModelProto, ModelProto],
    feeds: Mapping[str, Array],
    run: Run,
) -> Proof:
    """Compares the masked original with the slim model, given the same decisions where they differ otherwise."""
    proof = _compare_on(index, mask, models, (feeds, feeds), run)
    handed = None if proof.passed else hand_over(index, mask, models, feeds, run)
    return proof if handed is None else _compare_on(index, mask, *handed, run)


def _compare_on(
    index: GroupIndex,
    mask: Mask,
    models: tuple[ModelProto, ModelProto],
    feeds: tuple[Mapping[str, Array], Mapping[str, Array]],
    run: Run,
) -> Proof:
    graph = index.graph
    masked, slim = models
    names = [output.name for output in masked.graph.output]
    scales = [smallest_scale(graph, name) for name in names]

    def original(given: Mapping[str, Array]) -> list[Array]:
        return [keep(index, mask, name, value) for name, value in zip(names, run(masked, given), strict=True)]

    found = _run_slim(graph, slim, feeds[1], run)
    expected = original(feeds[0])
    proof = compare(expected, found, scales)
    if proof.passed:
        return proof
    return compare(expected, found, above_noise(expected, original(nudged(feeds[0])), scales))


def _single(feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Returns inputs with those of half precision in single precision."""
    return {n: x.astype(np.float32) if x.dtype.kind not in "iub" and x.itemsize < 4 else x for n, x in feeds.items()}


def _run_slim(graph: ModelGraph, slim: ModelProto, feeds: Mapping[str, Array], run: Run) -> list[Array]:
    try:
        return run(slim, feeds)
    except Exception as error:
        raise ProofError(f"the slim model of {graph.label} must run, got: {error}") from error


def _takes(graph: ModelGraph, other: Mapping[str, Array], feeds: Mapping[str, Array], run: Run) -> bool:
    """Returns whether the original takes inputs of other sizes: it runs, and its outputs hold as many samples.

    A Reshape to (-1, C * H * W) runs at other sizes too, by taking a part of an image for a sample.
    """
    try:
        outputs, first = run(graph.proto, other), run(graph.proto, feeds)
    except Exception:  # whatever the runtime raises: the model does not take this size
        return False
    samples = [np.shape(x)[:1] for x in feeds.values() if np.ndim(x) > 1][:1]
    pairs = [(np.shape(a)[:1], np.shape(b)[:1]) for a, b in zip(outputs, first, strict=True)]
    return all(a == b for a, b in pairs if [b] == samples)


def check_runs(graph: ModelGraph, feeds: Mapping[str, Array], run: Run) -> None:
    """Checks that the original runs, and that its weights and outputs are numbers that a proof can compare.

    Raises:
        ModelError: It does not run, a weight is not finite, or an output holds no finite number.
    """
    for node in graph.nodes:
        for name in (node.inputs[position] for position in weight_positions(node)):
            weight = graph.constant(name)
            if weight is not None and weight.dtype.kind == "f" and not np.isfinite(weight).all():
                raise ModelError(f"{graph.label}: weight {name!r} must be finite, got NaN or infinity")
    try:
        outputs = run(graph.proto, feeds)
    except Exception as error:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in feeds.items())
        raise ModelError(
            f"{graph.label} must run on random inputs, got: {error}",
            hint=f"Tried {shapes}. {_remedy(graph)}".strip(),
        ) from error
    _check_reading(graph, outputs, feeds, run)
    for name, output in zip(graph.outputs, outputs, strict=True):
        if not isinstance(output, np.ndarray):
            raise ModelError(f"{graph.label}: output {name!r} must be a tensor, got a {type(output).__name__}")
        if not is_finite(output):
            raise ModelError(
                f"{graph.label}: output {name!r} must hold a finite number, got none with random numbers, zeros, ones "
                f"or numbers in [0, 1] as inputs {', '.join(map(repr, graph.inputs))}",
                hint="Are there NaN or infinite weights in the file?",
            )


def _remedy(graph: ModelGraph) -> str:
    """Returns how to name other sizes, where axes other than the first are open."""
    name = next((name for name, axes in graph.symbolic.items() if any(axes)), None)
    if name is None:
        return ""
    shape = "x".join(map(str, graph.shapes[name]))
    return f"Name sizes of the open axes that it takes, in place of those in `input_shapes={name}:{shape}`"


def _check_reading(graph: ModelGraph, outputs: list[Array], feeds: Mapping[str, Array], run: Run) -> None:
    """Checks that what was rearranged at load still computes what the file does."""
    if graph.written is None:
        return
    found = compare(run(graph.written, feeds), outputs)
    if not found.passed:
        raise ProofError(
            f"{graph.label} must compute the same after it was read, got a difference of {found.max_rel_diff:.3g}",
            hint="This is a bug of bocr-onnx: please report it with the model.",
        )


def _check_declared(graph: ModelGraph, changed: Mapping[Operand, Array], weights: Mapping[Operand, Array]) -> None:
    for at, array in changed.items():
        if at not in weights or not np.array_equal(array, weights[at].astype(array.dtype), equal_nan=True):
            node = graph.nodes[at[0]]
            raise ProofError(
                f"the slim model of {graph.label} must carry the original's kept weights, got others at node "
                f"{node.name!r}, input {at[1]} ({node.input(at[1]) or 'added'!r}); nothing was written",
                hint="This is a bug of bocr-onnx: please report it with the model.",
            )


def _witnesses(index: GroupIndex, mask: Mask) -> list[str]:
    """Returns weighted tensors that kept all their channels: a saturated softmax after them hides nothing."""
    graph = index.graph
    found = [
        node.outputs[0]
        for node in graph.nodes
        if is_weighted(node)
        and node.outputs[0] in index.axes
        and all(mask[c[c >= 0]].all() for c in index.axes[node.outputs[0]].values())
        and node.outputs[0] not in graph.outputs
    ]
    return found[-MAX_WITNESSES:]


def _check_valid(graph: ModelGraph, slim: ModelProto) -> ModelGraph:
    try:
        onnx.checker.check_model(slim, full_check=graph.strict)
        found = from_proto(slim, input_shapes=graph.input_shapes)
    except Exception as error:
        raise ProofError(f"the slim model of {graph.label} must be valid, got: {error}") from error
    for name in (*graph.inputs, *graph.outputs):
        if found.shapes.get(name) != graph.shapes.get(name):
            raise ProofError(
                f"the slim model of {graph.label} must keep the shape of {name!r}, "
                f"{graph.shapes.get(name)}, got {found.shapes.get(name)}"
            )
    return found
