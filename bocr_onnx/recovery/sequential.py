"""Sequential recovery: each operator is fitted on what the slim model really feeds it.

The original and the slim model are walked side by side, node by node. At a weighted operator with slim input
patches p' and the original's outputs y, weights and bias solve

    min  sum ||p' W'^T + b' - (y + e)||^2 + ridge ||W' - W_S||^2,    e = stream_original - stream_slim

where W_S is the weight of the closed form in one shot, the ridge is chosen by images that are left out
(`bocr_onnx.recovery.normal`), and e, at an operator whose output is added to a stream, is the error that stream has
gathered so far: the block repairs what earlier blocks have lost. One pass, no labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from bocr_onnx.graph import Array, Edit, InputRows, ModelGraph, Node, Operand, feeds
from bocr_onnx.groups import GroupIndex
from bocr_onnx.recovery.blas import one_thread
from bocr_onnx.recovery.moments import MAX_COLUMNS, N_ROWS, whole_runs
from bocr_onnx.recovery.normal import N_PARTS, NormalSums, solve_parts
from bocr_onnx.recovery.patches import Affine, from_matrix, kept_columns, kept_outputs, to_matrix
from bocr_onnx.recovery.stepper import Chunks, computed_inputs, run_node
from bocr_onnx.recovery.windows import CONVOLUTIONS, draw_positions, input_rows, output_rows
from bocr_onnx.runtime import Progress, batch_size
from bocr_onnx.slimming import Mask, cut_edit, cut_operand, kept_positions, on_grid

CHUNK = 250
MEMORY_BYTES = 4 << 30
"""Activations of both models that may be alive at once; fewer images are used where all would take more."""


@dataclass(slots=True)
class _Walk:
    """The two models' live tensors, by name."""

    index: GroupIndex
    mask: Mask
    original: dict[str, Chunks] = field(default_factory=dict)
    slim: dict[str, Chunks] = field(default_factory=dict)
    weights: dict[Operand, Array] = field(default_factory=dict)
    start: Mapping[Operand, Array] = field(default_factory=dict)


def recover_sequential(
    index: GroupIndex,
    affines: tuple[Affine, ...],
    mask: Mask,
    images: InputRows,
    *,
    start: Mapping[Operand, Array] | None = None,
    seed: int = 0,
    n_rows: int = N_ROWS,
    memory_bytes: int = MEMORY_BYTES,
    progress: Progress | None = None,
) -> dict[Operand, Array]:
    """Returns the refitted weights and biases of the slim model, in slim shape.

    Args:
        index: Groups of the model.
        affines: Its weighted operators.
        mask: Which channels stay.
        images: Preprocessed, float32, first axis the images; as many of the first ones are used as `MEMORY_BYTES`
            allows.
        start: Weights of the slim model that fits are drawn to, in slim shape; the cut originals where it has none.
        seed: Seed for the positions drawn.
        n_rows: Patches per operator, over all images.
        memory_bytes: What activations of both models may take; fewer images are used where all would take more.
        progress: Told after each node.
    """
    graph = index.graph
    rng = np.random.default_rng(seed)
    walk = _Walk(index, mask, start=start or {})
    batch = batch_size(graph, CHUNK)
    fitting = max(batch, memory_bytes // max(1, 2 * peak_bytes(graph)))
    n_images = whole_runs(graph, min(len(images), fitting), batch)
    batch = batch_size(graph, min(CHUNK, -(-n_images // N_PARTS)))
    chunks = [feeds(graph, images[i : min(i + batch, n_images)]) for i in range(0, n_images, batch)]
    for name in chunks[0]:
        walk.original[name] = walk.slim[name] = tuple(chunk[name] for chunk in chunks)
    by_node = {a.node.index: a for a in affines}
    last = _last_reads(graph)
    needed = _needed(graph, by_node)
    cut_all = cut_edit(index, mask)
    for node in graph.nodes:
        if node.index in needed:
            _step(walk, node, cut_all, by_node.get(node.index), n_rows, rng)
        for name in (*node.inputs, *node.captures, *node.outputs):
            if last.get(name, -1) <= node.index:
                walk.original.pop(name, None)
                walk.slim.pop(name, None)
        if progress:
            progress(node.index + 1, len(graph.nodes))
    return walk.weights


def peak_bytes(graph: ModelGraph) -> int:
    """Returns the bytes of inputs and activations alive at the widest point of the graph, per image."""
    last = _last_reads(graph)
    alive = {name: _tensor_bytes(graph, name) for name in graph.inputs}
    peak = sum(alive.values())
    for node in graph.nodes:
        for name in node.outputs:
            if name and graph.constant(name) is None:
                alive[name] = _tensor_bytes(graph, name)
        peak = max(peak, sum(alive.values()))
        for name in (*node.inputs, *node.captures, *node.outputs):
            if last.get(name, -1) <= node.index:
                alive.pop(name, None)
    return peak


def _tensor_bytes(graph: ModelGraph, name: str) -> int:
    return 4 * math.prod(graph.shapes.get(name, ())) // graph.batch


def _needed(graph: ModelGraph, by_node: Mapping[int, Affine]) -> set[int]:
    """Returns the nodes that have to run: computed ones, up to the last operator that is fitted."""
    end = max(by_node, default=-1)
    return {
        node.index
        for node in graph.nodes
        if node.index <= end and any(graph.constant(name) is None for name in node.outputs if name)
    }


def _last_reads(graph: ModelGraph) -> dict[str, int]:
    """Returns the node after which a tensor is not needed; a stream is kept until its Add has been prepared."""
    last: dict[str, int] = {}
    for node in graph.nodes:
        for name in (*node.inputs, *node.captures, *node.outputs):
            last[name] = node.index
    return last


def _step(walk: _Walk, node: Node, cut_all: Edit, affine: Affine | None, n_rows: int, rng: np.random.Generator) -> None:
    graph = walk.index.graph
    names = computed_inputs(graph, node)
    feeds = {name: walk.original[name] for name in names}
    slim_feeds = {name: walk.slim[name] for name in names}
    found = run_node(graph, node, Edit(), feeds)
    walk.original.update(found)
    own = {at: a for at, a in cut_all.operands.items() if at[0] == node.index} | _cut_where_stored(walk, node)
    own |= {at: a for at, a in walk.weights.items() if at[0] == node.index}
    attributes = {at: v for at, v in cut_all.attributes.items() if at[0] == node.index}
    unchanged = all(feeds[n] is slim_feeds[n] for n in names)
    if unchanged and not own and not attributes:
        walk.slim.update(found)
        return
    if affine is not None and not unchanged:
        fitted = _fit(walk, affine, n_rows, rng)
        walk.weights.update(fitted)
        own |= fitted
    walk.slim.update(run_node(graph, node, Edit(own, attributes), slim_feeds))


def _cut_where_stored(walk: _Walk, node: Node) -> dict[Operand, Array]:
    """Returns the slim constants that a node reads through a DequantizeLinear, before which they are cut."""
    graph, found = walk.index.graph, {}
    for position, name in enumerate(node.inputs):
        at = (node.index, position)
        if at in walk.index.slices and graph.rounded(name) is not None:
            slim = cut_operand(walk.index, walk.mask, at)
            if slim is not graph.operand(at):
                found[at] = slim
    return found


def _fit(walk: _Walk, affine: Affine, n_rows: int, rng: np.random.Generator) -> dict[Operand, Array]:
    graph, node = walk.index.graph, affine.node
    weight = graph.operand(affine.weight)
    assert weight is not None
    columns = kept_columns(affine, walk.index, walk.mask)
    if affine.bias is None or len(columns) > MAX_COLUMNS:
        return {}
    outputs = kept_outputs(affine, walk.index, walk.mask)
    error = _stream_error(walk, affine)
    chunks = walk.original[node.outputs[0]]
    total = sum(len(c) for c in chunks)
    parts = [NormalSums(affine.n_blocks(len(outputs))) for _ in range(min(N_PARTS, len(chunks)))]
    for i, y in enumerate(chunks):
        at = draw_positions(y.shape, node.op, max(1, n_rows * len(y) // total), rng)
        rows = input_rows(node, weight.shape[2:], walk.slim[node.inputs[0]][i], at)
        target = output_rows(node, y, at)[:, outputs]
        if error is not None:
            target = target + output_rows(node, error[i], at)
        parts[i * len(parts) // len(chunks)].add(rows, target)
    fitted = walk.start.get(affine.weight)
    start = to_matrix(affine, graph, cut_operand(walk.index, walk.mask, affine.weight) if fitted is None else fitted)
    with one_thread():
        matrix, bias = solve_parts(parts, start)
    if affine.bias[0] != node.index:  # it is added afterwards, to what the target does not hold yet
        bias = bias + cut_operand(walk.index, walk.mask, affine.bias)
    found = {affine.weight: from_matrix(affine, graph, matrix), affine.bias: bias.astype(weight.dtype)}
    return {at: on_grid(walk.index, walk.mask, at, array) for at, array in found.items()}


def _stream_error(walk: _Walk, affine: Affine) -> list[Array] | None:
    """Returns what the stream that the output is added to has lost so far, in units of the output, or None."""
    graph, node = walk.index.graph, affine.node
    name, scale = node.outputs[0], None
    while True:
        readers = graph.readers.get(name, ())
        if len(readers) != 1 or name in graph.outputs:
            return None
        reader = graph.nodes[readers[0][0]]
        if reader.op == "BatchNormalization" and scale is None:
            scale = _gain(walk, reader)
            name = reader.outputs[0]
        elif reader.op == "Add" and any(graph.constant(one) is not None for one in reader.inputs):
            name = reader.outputs[0]
        elif reader.op in ("Add", "Sum") and len(reader.inputs) == 2:
            break
        else:
            return None
    other = reader.inputs[1] if reader.inputs[0] == name else reader.inputs[0]
    if other not in walk.original or other not in walk.slim:
        return None
    if graph.shapes[other] != graph.shapes[name] or walk.original[other] is walk.slim[other]:
        return None
    axis = 1 if node.op in CONVOLUTIONS else len(graph.shapes[name]) - 1
    channels = walk.index.axes.get(other, {}).get(axis)
    errors = []
    for wide, slim in zip(walk.original[other], walk.slim[other], strict=True):
        kept = np.arange(wide.shape[axis]) if channels is None else kept_positions(channels, walk.mask)
        error = np.take(wide, kept, axis=axis) - slim
        if scale is not None:
            error = error / scale.reshape(-1, *[1] * (error.ndim - 1 - axis))
        errors.append(error)
    return errors


def _gain(walk: _Walk, node: Node) -> Array:
    """Returns the factor a BatchNormalization applies to each kept channel.

    Tiny ones become infinite, so that no stream error is asked of a channel that hardly reaches the stream.
    """
    gamma, variance = (cut_operand(walk.index, walk.mask, (node.index, i)) for i in (1, 4))
    gain = gamma / np.sqrt(variance + float(node.attributes.get("epsilon", 1e-5)))
    return np.asarray(np.where(np.abs(gain) < 1e-3, np.inf, gain), dtype=np.float32)
