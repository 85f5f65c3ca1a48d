"""Sizes of open axes: what stands in for them, what follows at other sizes, and inputs that fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, numpy_helper

from bocr_onnx.errors import ModelError, UsageError, did_you_mean
from bocr_onnx.graph.fills import fill
from bocr_onnx.graph.infer import Knowledge, walk
from bocr_onnx.graph.model import ModelGraph, Node

Shape = tuple[int, ...]
InputShapes = Mapping[str, Sequence[int]]
"""Input name -> the sizes of all its axes, those that the file leaves open too; ``""`` names a single input."""

STAND_INS = {2: 512, 3: 224, 4: 224, 5: 32}
"""By the rank of an input, what stands in for its open axes after the channels: the samples of a signal, the sides of
an image or a volume. MACs need a size, and the kept share hardly depends on which. Other open axes count as 1."""

OTHER_SIZES = {1: 5, 512: 1024, 224: 160, 32: 48}
ODD_SIZES, EVEN_SIZES = {1: 131, 512: 1021, 224: 509, 32: 61}, {1: 131, 512: 2048, 224: 544, 32: 96}

COLOURS = (1, 3, 4)
"""Channels of images."""

MAX_FEED_ELEMENTS = 1 << 26


def other_size(size: int) -> int:
    """Returns what an open axis of a size is fed with a second time, so that nothing holds only for the first size."""
    return OTHER_SIZES.get(size, 32 * (size // 32 + 1))


def odd_size(size: int) -> int:
    """Returns what an open axis is analysed with again: a prime that no bound or divisor makes equal to the first."""
    if size in ODD_SIZES:
        return ODD_SIZES[size]
    return next(n for n in count(2 * size + 61) if all(n % d for d in range(2, math.isqrt(n) + 1)))


def even_size(size: int) -> int:
    """Returns what an open axis is analysed with for networks that need whole blocks of 32."""
    return EVEN_SIZES.get(size, 32 * (2 * (size // 32) + 3))


def start(
    proto: ModelProto, inputs: tuple[str, ...], label: str, asked: InputShapes = MappingProxyType({})
) -> Knowledge:
    """Returns the types of the inputs, with sizes for their open axes, and the values of the initializers.

    Args:
        proto: The model.
        inputs: What a caller must feed.
        label: Names the model in errors.
        asked: Shapes of inputs; stand-ins take the open axes of the others.

    Raises:
        ModelError: An initializer is damaged.
        UsageError: A shape is of no input, or does not fit it.
    """
    known = Knowledge()
    for tensor in proto.graph.initializer:
        try:
            known.learn(tensor.name, numpy_helper.to_array(tensor), constant=True)
        except Exception as error:
            raise ModelError(
                f"{label}: initializer {tensor.name!r} must hold the data its shape asks for, got: {error}"
            ) from error
    infos = [i for i in proto.graph.input if i.name in inputs and i.type.WhichOneof("value") == "tensor_type"]
    shapes = _concrete_shapes(infos, asked, label)
    known.types |= {info.name: _concrete(info, shapes[info.name]) for info in infos}
    known.declared = _declared(proto, known)
    return known


def at_shapes(graph: ModelGraph, asked: InputShapes) -> dict[str, Shape]:
    """Returns the shapes of the inputs that a graph would have if it were read with the shapes that are asked for."""
    infos = [i for i in graph.proto.graph.input if i.name in graph.inputs and i.name in graph.shapes]
    return _concrete_shapes(infos, asked, graph.label)


def _concrete_shapes(infos: list[onnx.ValueInfoProto], asked: InputShapes, label: str) -> dict[str, Shape]:
    """Returns the shape of every input: as asked for, or with stand-ins; axes of one name have one size."""
    shapes = _asked_shapes(infos, asked, label)
    named = {
        d.dim_param: shapes[info.name][axis]
        for info in infos
        if info.name in shapes
        for axis, d in enumerate(info.type.tensor_type.shape.dim)
        if d.dim_param
    }
    return {info.name: shapes.get(info.name) or _stand_in(info, named) for info in infos}


def _asked_shapes(infos: list[onnx.ValueInfoProto], asked: InputShapes, label: str) -> dict[str, Shape]:
    """Returns the shapes that are asked for, by input name, checked against the inputs."""
    by_name = {info.name: info for info in infos}
    found = {}
    for given, sizes in asked.items():
        name = infos[0].name if not given and len(infos) == 1 else given
        if name not in by_name:
            raise UsageError(
                f"{label}: an input shape must be of an input, got one of {name!r}",
                hint=did_you_mean(name, by_name),
            )
        if name in found:
            raise UsageError(f"{label}: the shape of input {name!r} must be given once, got it twice")
        found[name] = _checked_shape(by_name[name], tuple(sizes), label)
    return found


def _checked_shape(info: onnx.ValueInfoProto, shape: Shape, label: str) -> Shape:
    dims = info.type.tensor_type.shape.dim
    free = open_axes(info)
    told = "x".join("?" if axis in free else str(d.dim_value) for axis, d in enumerate(dims)) or "no axes"
    fits = len(shape) == len(dims) and all(
        size > 0 and (axis in free or size == d.dim_value)
        for axis, (size, d) in enumerate(zip(shape, dims, strict=True))
    )
    if not fits:
        raise UsageError(
            f"{label}: the shape of input {info.name!r} must be {told} with positive sizes for each ?, "
            f"got {'x'.join(map(str, shape))}"
        )
    if math.prod(shape) > MAX_FEED_ELEMENTS:
        raise UsageError(
            f"{label}: the shape of input {info.name!r} must have at most {MAX_FEED_ELEMENTS} elements, "
            f"got {'x'.join(map(str, shape))}"
        )
    return shape


def _declared(proto: ModelProto, known: Knowledge) -> dict[str, onnx.TypeProto]:
    """Returns the types that the file declares for inner tensors, where their open axes are those of an input."""
    sizes: dict[str, int] = {}
    for info in proto.graph.input:
        for dim, size in zip(info.type.tensor_type.shape.dim, known.shape(info.name) or (), strict=False):
            sizes[dim.dim_param] = size
    found = {}
    for info in proto.graph.value_info:
        made = onnx.TypeProto()
        made.CopyFrom(info.type)
        for dim in made.tensor_type.shape.dim:
            if not dim.HasField("dim_value") and dim.dim_param in sizes and dim.dim_param:
                dim.dim_value = sizes[dim.dim_param]
        if made.tensor_type.HasField("shape") and all(d.dim_value > 0 for d in made.tensor_type.shape.dim):
            found[info.name] = made
    return found


def _concrete(info: onnx.ValueInfoProto, shape: Shape) -> onnx.TypeProto:
    """Returns the type of an input with its open axes at the sizes of a shape."""
    made = onnx.TypeProto()
    made.CopyFrom(info.type)
    dims = made.tensor_type.shape.dim
    for axis in open_axes(info):
        dims[axis].Clear()
        dims[axis].dim_value = shape[axis]
    return made


def _stand_in(info: onnx.ValueInfoProto, named: Mapping[str, int] = MappingProxyType({})) -> Shape:
    """Returns the shape of an input with stand-ins at its open axes, or the size that goes by the name of an axis."""
    dims, free = info.type.tensor_type.shape.dim, open_axes(info)
    sizes = [STAND_INS.get(len(dims), 1) if axis >= first_side(info) else 1 for axis in range(len(dims))]
    return tuple(named.get(d.dim_param, sizes[axis]) if axis in free else d.dim_value for axis, d in enumerate(dims))


def first_side(info: onnx.ValueInfoProto) -> int:
    """Returns the first axis of an input that, where it is open, is a length or a side: it comes after the channels.

    In rank 4 with a last axis fixed at 1, 3 or 4, the channels come last, so an open axis 1 is a height.
    """
    dims = info.type.tensor_type.shape.dim
    return 1 if len(dims) == 4 and dims[3].dim_value in COLOURS else min(2, len(dims) - 1)


@dataclass(frozen=True, slots=True)
class Resized:
    """A model whose inputs may have other sizes than those it was read with."""

    proto: ModelProto
    nodes: list[tuple[Node, NodeProto]]
    opsets: dict[str, int]
    known: Knowledge
    inputs: set[str]

    def walk(self, resize: Callable[[int], int]) -> list[Knowledge]:
        """Returns what is known when open axes have other sizes; nothing where none is open.

        Args:
            resize: From the size of an open axis to its other size.
        """
        known = self.known
        opened = [i for i in self.proto.graph.input if i.name in self.inputs and open_axes(i)]
        if not opened:
            return []
        types = {name: known.types[name] for name in (*self.inputs, *known.constants) if name in known.types}
        for info in opened:
            types[info.name] = _concrete(info, tuple(map(resize, known.shape(info.name) or ())))
        computed = [(n, p) for n, p in self.nodes if any(o not in known.constants for o in n.outputs if o)]
        again = Knowledge(types, dict(known.constants))
        again.declared = _declared(self.proto, again)
        return [walk(computed, self.opsets, again)]


def keep_values(sizes: list[Knowledge]) -> None:
    """Makes constants of the values that are the same at every size of the inputs, as far as these are known."""
    known, *others = sizes
    for name, value in list(known.values.items()):
        found = [other.values[name] for other in others if name in other.values]
        if (found or not others) and all(np.array_equal(value, other) for other in found):
            known.constants[name] = known.values.pop(name)


def open_axes(info: onnx.ValueInfoProto) -> tuple[int, ...]:
    """Returns the axes of an input that the file leaves open."""
    dims = info.type.tensor_type.shape.dim
    return tuple(axis for axis, d in enumerate(dims) if not d.HasField("dim_value") or d.dim_value <= 0)


def random_feeds(
    graph: ModelGraph, *, batch: int | None = None, seed: int = 0, resize: Callable[[int], int] | None = None
) -> dict[str, np.ndarray[Any, Any]]:
    """Returns seeded random inputs that fit the graph.

    Args:
        graph: The model.
        batch: Used for the first axis, where every input leaves it open; None takes the size the graph was read with.
        seed: Seed of the generator.
        resize: From the size of another open axis to the one it is fed with; None feeds what the graph was read with.

    Returns:
        Arrays keyed by input name, of values as `fill` chooses them.

    Raises:
        ModelError: An input's shape is unknown, or it is larger than any image.
    """
    rng = np.random.default_rng(seed)
    feeds = {}
    for name in graph.inputs:
        if name not in graph.shapes:
            raise ModelError(f"{graph.label}: input {name!r} must be a tensor of known rank, got another type")
        shape = list(graph.shapes[name])
        for axis in graph.symbolic.get(name, ()):
            if axis == 0:
                shape[0] = batch if batch is not None and graph.batch_is_symbolic() else shape[0]
            elif resize is not None:
                shape[axis] = resize(shape[axis])
        if math.prod(shape) > MAX_FEED_ELEMENTS:
            raise ModelError(f"{graph.label}: input {name!r} must be of a size that can be fed, got {tuple(shape)}")
        dtype = onnx.helper.tensor_dtype_to_np_dtype(graph.dtypes[name])
        feeds[name] = fill(graph, name, tuple(shape), dtype, rng)
    return feeds


def open_sides(graph: ModelGraph) -> tuple[int, ...]:
    """Returns the sizes that the graph was read with at open axes other than the first, each once."""
    return tuple(
        {graph.shapes[n][a]: None for n, axes in graph.symbolic.items() for a in axes if a and n in graph.shapes}
    )


def other_feeds(graph: ModelGraph, *, batch: int, seed: int = 0) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    """Yields random inputs of other sizes than the graph was read with: at all open axes, then at those of one size.

    A model may take other widths and only one height. Sizes that are too large to be fed are left out.
    """
    sides = open_sides(graph)
    for changed in [sides] if len(sides) == 1 else [sides, *([s] for s in sides)] if sides else []:
        try:
            yield random_feeds(graph, batch=batch, seed=seed, resize=partial(_resized, changed))
        except ModelError:
            continue


def _resized(changed: Sequence[int], size: int) -> int:
    return other_size(size) if size in changed else size
