"""What a model offers to a pruner."""

from __future__ import annotations

from dataclasses import replace

from bocr_onnx.cost import prunable
from bocr_onnx.errors import BocrError
from bocr_onnx.graph import ModelGraph, load, random_feeds
from bocr_onnx.options import InspectOptions, keywords
from bocr_onnx.pipeline.inspection import Inspection, inspect_graph
from bocr_onnx.pipeline.model import at_sizes_that_run
from bocr_onnx.progress import shown
from bocr_onnx.runtime import run_once
from bocr_onnx.slimming import check_runs, filled


@keywords(InspectOptions)
def inspect(options: InspectOptions) -> Inspection:
    """Returns the channel groups of an ONNX file, what they cost, and what cannot be cut.

    Args: from the record.

    Raises:
        ModelError: The file cannot be used.
        UsageError: A shape is of no input, or does not fit it.

    Example:
        >>> from importlib.resources import files
        >>> found = inspect(str(files("bocr_onnx.calibration") / "demo.onnx"))
        >>> found.prunable_share > 0.9
        True
    """
    watched, shapes = shown(options.progress), options.input_shapes
    graph = at_sizes_that_run(load(options.model, shapes), shapes, note=watched.note)
    found = replace(inspect_graph(prunable(graph)), warning=_warning(graph))
    if found.warning:
        watched.note(f"warning: {found.warning}")
    return found


def _warning(graph: ModelGraph) -> str:
    """Returns why `prune` would refuse a model that can be read but does not run; empty where it runs."""
    try:
        graph = filled(graph, run_once)
        check_runs(graph, random_feeds(graph), run_once)
    except BocrError as error:
        return f"prune will refuse this file: {error.message}"
    return ""
