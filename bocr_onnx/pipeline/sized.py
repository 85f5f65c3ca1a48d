"""The sizes of open axes are those of the images, where there are images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bocr_onnx.data import Pools, Samples
from bocr_onnx.graph import InputShapes, ModelGraph, load, resized
from bocr_onnx.pipeline.images import check_shape, fit_images
from bocr_onnx.pipeline.model import Note, open_inputs, runnable
from bocr_onnx.runtime import close_batch

Source = Callable[[], tuple[Pools, Samples]]
"""Opens the data: all of it, and images to try presets on."""


def read_for_images(
    path: str | Path, source: Source, preprocessing: str | None, input_shapes: InputShapes, *, note: Note | None = None
) -> ModelGraph:
    """Returns the graph of a file, its open axes at the size of the preprocessed images.

    A size that is asked for stays; several inputs take the sizes of the arrays named like them.

    Args:
        path: The .onnx file.
        source: Opens the data; asked only where an axis other than the first is open.
        preprocessing: A preset or a file; None guesses.
        input_shapes: Shapes of inputs by name.
        note: Told which sizes were taken.

    Raises:
        ModelError: The file cannot be used, or does not run at this size.
        DataError: The data or the preprocessing does not fit the model.
        UsageError: A shape is of no input, or does not fit it.
    """
    graph = load(path, input_shapes)
    free = open_inputs(graph, input_shapes)
    if not free:
        return runnable(graph, input_shapes, note=note)
    if len(graph.inputs) != 1:
        _, sample = source()
        columns: Mapping[str, Any] = {} if isinstance(sample.images, tuple) else sample.images.dtype.fields or {}
        known = {n: (graph.shapes[n][0], *columns[n][0].shape) for n in free if n in columns}
        shapes = {**input_shapes, **known}
        return runnable(resized(graph, shapes) if known else graph, shapes, note=note)
    size = _size_of_images(graph, source, preprocessing)
    name = graph.inputs[0]
    if note is not None:
        note(f"open axes of {name!r} taken from the images, {'x'.join(map(str, size))} each")
    sized = {name: (graph.shapes[name][0], *size)}
    return runnable(resized(graph, sized), sized)


def _size_of_images(graph: ModelGraph, source: Source, preprocessing: str | None) -> tuple[int, ...]:
    """Returns the shape of the first preprocessed image."""
    pools, sample = source()
    judge = graph if preprocessing is not None else close_batch(graph)
    found = fit_images(judge, pools, sample, preprocessing, any_size=True)
    image = sample.take([0]).load(found.preprocessing)
    check_shape(graph, image, pools.path, any_size=True)
    return image.shape[1:]
