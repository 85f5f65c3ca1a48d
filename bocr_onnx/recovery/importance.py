"""How much a channel matters: the energy that its readers draw from it.

    importance(c) = sum over readers of   E[x_c^2] * sum W[..., c, ...]^2   /   the same over all that the reader reads

A reader is an operator that sums over channels, whatever its weight is and however it is stored. Without images every
energy E counts as one. Where no weight reads the channels, because two activations are multiplied (queries and keys
of attention), the energies of both are multiplied; without images they are those that the weights that make both give
to random inputs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

import numpy as np

from bocr_onnx.graph import (
    INTEGER,
    ZERO_POINT,
    Array,
    InputRows,
    ModelGraph,
    Operand,
    feeds,
    random_feeds,
    scale_positions,
    weight_positions,
    with_outputs,
)
from bocr_onnx.groups import Channels, GroupIndex
from bocr_onnx.recovery.moments import whole_runs
from bocr_onnx.recovery.patches import Floats
from bocr_onnx.runtime import batch_size
from bocr_onnx.runtime.session import open_session, run_session

N_RANDOM = 4
"""Runs on random inputs where there are no images."""

Energies = Mapping[Operand, Floats]
"""Read of a computed operand -> mean square of each entry along the axis that is summed over, shape `(n,)`."""


def energy_drawn(index: GroupIndex, energies: Energies, *, without: Collection[int] = ()) -> Floats:
    """Returns what the readers draw from each channel of every group, together.

    Args:
        index: Groups of the model.
        energies: Energies of what is read; may lack reads, or be empty.
        without: Nodes that do not count.

    Returns:
        Sum over readers of the share of all the energy that each reads, shape `(n_channels,)`.
    """
    sinks: dict[int, list[Operand]] = defaultdict(list)
    for operand in index.sinks:
        sinks[operand[0]].append(operand)
    reads: dict[int, list[Operand]] = defaultdict(list)
    for read in index.reads:
        reads[read[0]].append(read)
    total = np.zeros(index.n_channels)
    for number in sorted(({*sinks} | {*reads}) - {*without}):
        drawn = _by_weights(index, sinks[number])
        if drawn is None:
            drawn = _by_product(index, reads[number])
        if drawn is None:
            continue
        for read in reads[number]:
            if read in energies:
                drawn = drawn * _per_channel(index, index.reads[read][1], energies[read], mean=True)
        total += drawn[:-1] / max(float(drawn.sum()), 1e-30)
    return total


def _by_weights(index: GroupIndex, sinks: Collection[Operand]) -> Floats | None:
    """Returns squared norms of the weights that read each channel, fixed ones last; None where no weight reads any."""
    found: Floats | None = None
    for operand in sinks:
        for axis in index.sinks[operand]:
            channels = index.slices.get(operand, {}).get(axis)
            if channels is not None:
                norms = _per_channel(index, channels, _norms(index, operand, axis))
                found = norms if found is None else found + norms
    return found


def _by_product(index: GroupIndex, reads: Collection[Operand]) -> Floats | None:
    """Returns one for each channel that a product of activations reads; None where the operator is none.

    A depthwise convolution reads as well, but it has a weight, and sums over no channels.
    """
    if not reads or not is_product(index.graph, next(iter(reads))[0]):
        return None
    drawn = np.zeros(index.n_channels + 1)
    for read in reads:
        drawn[index.reads[read][1]] = 1  # -1 is the last entry
    return drawn


def is_product(graph: ModelGraph, node: int) -> bool:
    """Returns whether all factors of a node are computed."""
    return all(graph.operand((node, position)) is None for position in weight_positions(graph.nodes[node]))


def _norms(index: GroupIndex, operand: Operand, axis: int) -> Floats:
    """Returns the squared norm of a weight for each entry of an axis, shape `(n,)`."""
    numbers = _numbers(index.graph, operand, index.sources.get(operand, -1))
    apart = np.moveaxis(numbers, axis, 0).reshape(numbers.shape[axis], -1)
    return np.asarray((apart**2).sum(axis=1))


def _numbers(graph: ModelGraph, operand: Operand, outputs: int) -> Floats:
    """Returns what a weight stands for, float64: without the zero point and times the scale that an operator takes.

    Args:
        graph: The model.
        operand: The weight.
        outputs: Its axis of outputs, along which there may be a scale for each.
    """
    weight, node = graph.operand(operand), graph.nodes[operand[0]]
    assert weight is not None
    numbers = weight.astype(np.float64)
    for position in reversed(scale_positions(node, operand[1])):
        value = graph.operand((node.index, position))
        if value is None:
            continue
        along = value.reshape(-1, *[1] * (weight.ndim - 1 - outputs % weight.ndim)) if value.ndim == 1 else value
        numbers = numbers - along if position == operand[1] + ZERO_POINT else numbers * along
    return numbers


def _per_channel(index: GroupIndex, channels: Channels, values: Floats, *, mean: bool = False) -> Floats:
    """Returns sums of what lies along an axis for each channel, fixed ones last; of means, one where nothing lies."""
    n = index.n_channels
    where = np.where(channels < 0, n, channels)
    sums = np.bincount(where, values, minlength=n + 1)
    if not mean:
        return np.asarray(sums)
    times = np.bincount(where, minlength=n + 1)
    return np.asarray(np.where(times > 0, sums / np.maximum(times, 1), 1.0))


def _zero_point(graph: ModelGraph, read: Operand) -> float:
    """Returns what stands for zero in an operand of an operator on integers; zero where it is computed."""
    node = graph.nodes[read[0]]
    value = graph.operand((node.index, read[1] + ZERO_POINT)) if node.op in INTEGER else None
    return float(value.item()) if value is not None and value.size == 1 else 0.0


def collect_energies(
    index: GroupIndex, images: InputRows | None, *, without: Collection[int] = ()
) -> dict[Operand, Floats]:
    """Returns the energies of what operators read.

    Args:
        index: Groups of the model.
        images: Preprocessed, first axis the images. None takes random inputs, and asks for products of activations
            alone: their factors differ by the weights that made them.
        without: Nodes of which nothing is asked.
    """
    graph = index.graph
    wanted = {
        read: axis
        for read, (axis, _) in index.reads.items()
        if read[0] not in without and graph.operand(read) is None and (images is not None or is_product(graph, read[0]))
    }
    if not wanted:
        return {}
    names = {read: graph.nodes[read[0]].inputs[read[1]] for read in wanted}
    inside = [name for name in dict.fromkeys(names.values()) if name not in graph.inputs]
    session = open_session(with_outputs(graph.proto, inside))
    sums: dict[Operand, Floats] = {}
    n_samples = 0
    for inputs, n in _batches(graph, images):
        found = dict(zip(inside, run_session(session, inputs, inside), strict=True)) | inputs
        for read, axis in wanted.items():
            x = found[names[read]].astype(np.float32) - _zero_point(graph, read)
            square = np.square(np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1), dtype=np.float64)
            sums[read] = sums.get(read, 0.0) + square.mean(axis=1) * n
        n_samples += n
    return {read: total / n_samples for read, total in sums.items()}


def _batches(graph: ModelGraph, images: InputRows | None) -> Iterator[tuple[dict[str, Array], int]]:
    """Yields inputs of single runs, and how many samples they hold."""
    if images is None:
        yield from ((random_feeds(graph, seed=seed), 1) for seed in range(N_RANDOM))
        return
    batch = batch_size(graph)
    n_images = whole_runs(graph, len(images), batch)
    for start in range(0, n_images, batch):
        feed = images[start : min(start + batch, n_images)]
        yield feeds(graph, feed), len(feed)
