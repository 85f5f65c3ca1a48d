"""Looking inside a model while it runs: inner tensors as further outputs."""

from __future__ import annotations

from dataclasses import replace

from bocr_onnx.graph import ModelGraph


def watched(graph: ModelGraph, names: tuple[str, ...]) -> ModelGraph:
    """Returns the graph with the named tensors as outputs after its own, for `OnnxModule` only: no file has them."""
    return replace(graph, outputs=(*graph.outputs, *(name for name in names if name not in graph.outputs)))


def learnt(graph: ModelGraph, names: tuple[str, ...], further: tuple[str, ...] = ()) -> ModelGraph:
    """Returns the graph with the named tensors as its only outputs, then further ones, for `OnnxModule` only."""
    return watched(replace(graph, outputs=names), further)


def feature_maps(student: ModelGraph, teacher: ModelGraph) -> tuple[str, ...]:
    """Returns the feature maps that the cut left whole, the last one of every resolution, in node order.

    A feature map has a batch, channels and at least two spatial positions; it has the same name and shape in both
    models.
    """
    last: dict[tuple[int, ...], str] = {}
    for node in student.nodes:
        for name in node.outputs:
            shape = student.shapes.get(name, ())
            whole = len(shape) == 4 and shape == teacher.shapes.get(name) and name not in student.constants
            if whole and name not in student.outputs and max(shape[2:]) > 1:
                last[shape[2:]] = name
    return tuple(last.values())
