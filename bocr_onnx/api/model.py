"""A file becomes a graph that is known to run."""

from __future__ import annotations

from pathlib import Path

from bocr_onnx.evaluation import close_batch, run_once
from bocr_onnx.graph import ModelGraph, load, random_feeds
from bocr_onnx.slimming import check_runs, filled


def read_model(path: str | Path) -> ModelGraph:
    """Returns the graph of a file, its batch fixed at 1 where more than one image at a time gives wrong rows.

    Raises:
        ModelError: The file cannot be used, or does not run on random inputs.
    """
    graph = filled(load(path), run_once)
    check_runs(graph, random_feeds(graph), run_once)
    return close_batch(graph)
