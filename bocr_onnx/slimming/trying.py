"""Inputs that a model can be tried with: random numbers, or what else keeps its outputs finite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from onnx import TensorProto

from bocr_onnx.graph import FILLS, FLOATING, Array, ModelGraph, random_feeds
from bocr_onnx.slimming.decisions import Run


def filled(graph: ModelGraph, run: Run) -> ModelGraph:
    """Returns the graph, with `ModelGraph.fills` where random inputs make an output NaN throughout or do not run.

    Numbers in [0, 1], ones and zeros are tried for one input after the other, the last first (masks come last), then
    for all at once. Of those that serve, the first is taken that does not make an output constant. Where the model
    does not run, its integers may be choices: ones and zeros are tried for these alone.

    Args:
        graph: The model.
        run: Runs a model.
    """
    finite = _finite(_outputs(graph, run))
    if finite:
        return graph
    tried = _fills(graph) if finite is not None else _choices(graph)
    serving = [(fills, outputs) for fills in tried if _finite(outputs := _outputs(_with(graph, fills), run))]
    if not serving:
        return graph
    lively = [fills for fills, outputs in serving if _varies(outputs)]
    return _with(graph, lively[0] if lively else serving[0][0])


def _with(graph: ModelGraph, fills: Mapping[str, str]) -> ModelGraph:
    return replace(graph, fills=fills)


def _fills(graph: ModelGraph) -> Iterator[dict[str, str]]:
    for name in reversed(graph.inputs):
        for kind in FILLS:
            yield {name: kind}
    if len(graph.inputs) > 1:
        for kind in FILLS:
            yield dict.fromkeys(graph.inputs, kind)


def _choices(graph: ModelGraph) -> Iterator[dict[str, str]]:
    integers = [name for name in graph.inputs if graph.dtypes.get(name, TensorProto.FLOAT) not in FLOATING]
    if integers:
        yield from (dict.fromkeys(integers, kind) for kind in ("ones", "zeros"))


def _outputs(graph: ModelGraph, run: Run) -> list[Array] | None:
    try:
        return run(graph.proto, random_feeds(graph))
    except Exception:  # whatever the runtime raises: it is reported where the model must run
        return None


def _finite(outputs: list[Array] | None) -> bool | None:
    """Returns whether every output holds a finite number; None where there are no outputs."""
    return None if outputs is None else all(is_finite(output) for output in outputs)


def is_finite(output: Array) -> bool:
    """Returns whether an output holds a finite number, or none that could be otherwise."""
    floating = isinstance(output, np.ndarray) and output.dtype.kind == "f" and output.size > 0
    return not floating or bool(np.isfinite(output).any())


def _varies(outputs: list[Array] | None) -> bool:
    arrays = [o for o in outputs or () if isinstance(o, np.ndarray) and o.size > 1]
    return all(np.ptp(array[np.isfinite(array)]) > 0 for array in arrays if np.isfinite(array).any())
