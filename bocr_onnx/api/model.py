"""A file becomes a graph that is known to run."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

from bocr_onnx.evaluation import close_batch, run_once
from bocr_onnx.graph import InputShapes, ModelGraph, load, random_feeds
from bocr_onnx.slimming import check_runs


def read_model(path: str | Path, input_shapes: InputShapes = MappingProxyType({})) -> ModelGraph:
    """Returns the graph of a file, its batch fixed at 1 where more than one image at a time gives wrong rows.

    Args:
        path: The .onnx file.
        input_shapes: Shapes of inputs by name, for the axes that the file leaves open.

    Raises:
        ModelError: The file cannot be used, or does not run on random inputs.
        UsageError: A shape is of no input, or does not fit it.
    """
    graph = load(path, input_shapes)
    check_runs(graph, random_feeds(graph), run_once)
    return close_batch(graph)
