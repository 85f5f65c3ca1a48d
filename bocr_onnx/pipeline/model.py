"""A file becomes a graph that is known to run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from onnx.helper import tensor_dtype_to_np_dtype

from bocr_onnx.errors import ModelError, UsageError
from bocr_onnx.graph import Array, InputShapes, ModelGraph, at_shapes, load, random_feeds, resized
from bocr_onnx.runtime import close_batch, first_that_runs, run_once
from bocr_onnx.slimming import check_runs, filled

Note = Callable[[str], None]

SIDES = (
    *((48, 320), (32, 128), (32, 32), (64, 64), (96, 96), (128, 128), (160, 160), (256, 256)),
    *((320, 320), (416, 416), (512, 512), (640, 640), (1, 128), (32, 100), (299, 299), (384, 384), (1024, 1024)),
)
"""Heights and widths of images that are tried where the stand-ins do not run, the most common first: lines of text,
then classifiers and detectors."""

LENGTHS = ((1, 512), (1, 1024), (1, 16000), (1, 100), (1, 80), (80, 100), (80, 3000), (512, 80))
"""Sizes of axes 1 and 2 of inputs of rank 3: signals, tokens and spectrograms. Where axis 2 is fixed, the larger one is
that of axis 1."""


def read_model(
    path: str | Path, input_shapes: InputShapes = MappingProxyType({}), *, note: Note | None = None
) -> ModelGraph:
    """Returns the graph of a file at sizes that it runs with, its batch fixed at 1 where more samples mix.

    Args:
        path: The .onnx file.
        input_shapes: Shapes of inputs by name, for the axes that the file leaves open; other sizes are tried for the
            inputs that are not named.
        note: Told which sizes were taken.

    Raises:
        ModelError: The file cannot be used, or does not run on random inputs.
        UsageError: A shape is of no input, or does not fit it.
    """
    return runnable(load(path, input_shapes), input_shapes, note=note)


def interface_of(graph: ModelGraph, names: Iterable[str] | None = None) -> str:
    """Returns name, shape and type of inputs and outputs, as text.

    Args:
        graph: The model, at the sizes it runs with.
        names: Tensors to tell; all inputs and outputs where None.
    """
    chosen = (*sorted(graph.inputs), *graph.outputs) if names is None else sorted(names)
    rows = [f"{n} {graph.shapes.get(n, '?')} {tensor_dtype_to_np_dtype(graph.dtypes[n])}" for n in chosen]
    return ", ".join(rows)


def read_like(path: str | Path, first: ModelGraph, *, outputs: bool) -> ModelGraph:
    """Returns a model at the sizes of another one, whose interface it has.

    Args:
        path: The .onnx file.
        first: The other one.
        outputs: Whether it must have its outputs too, and numbers in them; then one of the two may have an open batch
            where that of the other is fixed.

    Raises:
        ModelError: The file cannot be used, or has another interface.
    """
    try:
        graph = load(path, {name: first.shapes[name] for name in first.inputs})
    except UsageError:  # its own sizes are others
        graph = load(path)
    names = None if outputs else graph.inputs
    found, wanted = interface_of(graph, names), interface_of(first, first.inputs if names else None)
    opened = outputs and (graph.batch_is_symbolic() or first.batch_is_symbolic())
    if found != wanted and not (opened and _without_batch(graph) == _without_batch(first)):
        kind = "inputs and outputs" if outputs else "inputs"
        raise ModelError(
            f"{graph.label} must have the {kind} of {first.label}, {wanted}, got {found}",
            hint="Sizes of open axes are those that the first model runs with: name others with `input_shapes`."
            if any(first.symbolic.values())
            else "",
        )
    if outputs:
        check_runs(graph, random_feeds(replace(graph, fills=first.fills)), run_once)
    return graph


def _without_batch(graph: ModelGraph) -> dict[str, object]:
    return {name: (graph.shapes.get(name, ())[1:], graph.dtypes[name]) for name in (*graph.inputs, *graph.outputs)}


def runnable(
    graph: ModelGraph, input_shapes: InputShapes = MappingProxyType({}), *, note: Note | None = None
) -> ModelGraph:
    """Returns the graph at sizes that it runs with, its batch fixed at 1 where more samples mix.

    Args:
        graph: As loaded.
        input_shapes: It was loaded with.
        note: Told which sizes were taken.

    Raises:
        ModelError: It does not run on random inputs.
    """
    graph = filled(at_sizes_that_run(graph, input_shapes, note=note), run_once)
    check_runs(graph, random_feeds(graph), run_once)
    return close_batch(graph)


def at_sizes_that_run(
    graph: ModelGraph, input_shapes: InputShapes = MappingProxyType({}), *, note: Note | None = None
) -> ModelGraph:
    """Returns the graph, read again with other sizes for its open axes where it does not run; as it is where none do.

    Args:
        graph: As loaded.
        input_shapes: It was loaded with; these inputs keep their shapes.
        note: Told which sizes were taken.
    """
    free = open_inputs(graph, input_shapes)
    if not free:
        return graph
    tried = [dict(input_shapes), *({**input_shapes, **guess} for guess in _guesses(graph, free))]
    number = first_that_runs(graph.proto, _feeds(graph, tried))
    if number is None and note is not None:
        note(f"the model runs at none of the sizes tried; the figures are those of {_spelled(graph, free)}")
    if not number:
        return graph
    found = resized(graph, tried[number])
    _tell(found, free, note)
    return found


def _feeds(graph: ModelGraph, tried: Sequence[InputShapes]) -> Iterator[dict[str, Array]]:
    """Yields random inputs of each of the shapes; none at all where they are too large to be fed."""
    for shapes in tried:
        sized = replace(graph, shapes={**graph.shapes, **at_shapes(graph, shapes)})
        try:
            yield random_feeds(sized)
        except ModelError:
            yield {}


def open_inputs(graph: ModelGraph, input_shapes: InputShapes) -> dict[str, tuple[int, ...]]:
    """Returns the open axes after the first of every input that no shape is given for."""
    if "" in input_shapes:
        return {}
    found = {name: tuple(axis for axis in axes if axis) for name, axes in graph.symbolic.items()}
    return {name: axes for name, axes in found.items() if axes and name not in input_shapes}


def _guesses(graph: ModelGraph, free: dict[str, tuple[int, ...]]) -> Iterator[dict[str, tuple[int, ...]]]:
    for rank, sizes in ((4, SIDES), (3, LENGTHS)):
        names = [name for name in free if len(graph.shapes[name]) == rank]
        for pair in sizes if names else ():
            yield {name: _with_sizes(graph.shapes[name], free[name], pair) for name in names}


def _with_sizes(shape: tuple[int, ...], free: tuple[int, ...], pair: tuple[int, int]) -> tuple[int, ...]:
    """Returns a shape with two sizes at its open axes: height and width, or the axes 1 and 2 of rank 3."""
    made = list(shape)
    if len(shape) == 3:
        places = {1: pair[0] if 2 in free else max(pair), 2: pair[1]}
    else:
        first = 1 if shape[3] in (1, 3, 4) and 3 not in free and 1 in free else 2
        places = {first: pair[0], first + 1: pair[1]}
    for axis in free:
        made[axis] = places.get(axis, made[axis])
    return tuple(made)


def _spelled(graph: ModelGraph, names: Iterable[str]) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, graph.shapes[name]))}" for name in names)


def _tell(graph: ModelGraph, names: Iterable[str], note: Note | None) -> None:
    if note is None:
        return
    for name in names:
        taken = "x".join(str(graph.shapes[name][axis]) for axis in graph.symbolic[name] if axis)
        shape = "x".join(map(str, graph.shapes[name]))
        note(f"open axes of {name!r} taken as {taken}; name others with `input_shapes={name}:{shape}`")
