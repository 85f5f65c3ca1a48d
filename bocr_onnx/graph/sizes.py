"""Sizes of open axes: what stands in for them, what follows at other sizes, and inputs that fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, numpy_helper

from bocr_onnx.errors import ModelError
from bocr_onnx.graph.infer import Knowledge, walk
from bocr_onnx.graph.model import ModelGraph, Node

STAND_INS = {2: 512, 3: 224, 4: 224, 5: 32}
"""By the rank of an input, what stands in for its open axes behind the channels: the samples of a signal, the sides of
an image or a volume. MACs need a size, and the kept share hardly depends on which. Other open axes count as 1."""

OTHER_SIZES = {1: 5, 512: 1024, 224: 160, 32: 48}
"""What open axes are fed with a second time, so that nothing holds only for the first size."""

ODD_SIZES, EVEN_SIZES = {1: 131, 512: 1021, 224: 509, 32: 61}, {1: 131, 512: 2048, 224: 544, 32: 96}
"""What open axes are analysed with again: sizes that no bound or divisor makes equal to the first, and sizes that fit
networks which need whole blocks of 32."""

COLOURS = (1, 3, 4)
"""Channels of images."""

MAX_FEED_ELEMENTS = 1 << 26


def start(proto: ModelProto, inputs: tuple[str, ...], label: str) -> Knowledge:
    """Returns the types of the inputs, with sizes for their open axes, and the values of the initializers."""
    known = Knowledge()
    for tensor in proto.graph.initializer:
        try:
            known.learn(tensor.name, numpy_helper.to_array(tensor), constant=True)
        except Exception as error:
            raise ModelError(
                f"{label}: initializer {tensor.name!r} must hold the data its shape asks for, got: {error}"
            ) from error
    for info in proto.graph.input:
        if info.name in inputs and info.type.WhichOneof("value") == "tensor_type":
            known.types[info.name] = _concrete(info)
    known.declared = _declared(proto, known)
    return known


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


def _concrete(info: onnx.ValueInfoProto, others: Mapping[int, int] = MappingProxyType({})) -> onnx.TypeProto:
    made = onnx.TypeProto()
    made.CopyFrom(info.type)
    dims = made.tensor_type.shape.dim
    for axis in open_axes(info):
        size = STAND_INS.get(len(dims), 1) if axis >= first_side(info) else 1
        dims[axis].Clear()
        dims[axis].dim_value = others.get(size, size)
    return made


def first_side(info: onnx.ValueInfoProto) -> int:
    """Returns the first axis of an input that, where it is open, is a length or a side: it comes after the channels.

    Of rank 4 with a last axis that is fixed at 1, 3 or 4 the channels come last, so an open axis 1 is a height.
    """
    dims = info.type.tensor_type.shape.dim
    channels_last = len(dims) == 4 and dims[3].dim_value in COLOURS
    return 1 if channels_last else min(2, len(dims) - 1)


@dataclass(frozen=True, slots=True)
class Resized:
    """A model whose inputs may have other sizes than those it was read with."""

    proto: ModelProto
    nodes: list[tuple[Node, NodeProto]]
    opsets: dict[str, int]
    known: Knowledge
    inputs: set[str]

    def walk(self, sizes: Mapping[int, int]) -> list[Knowledge]:
        """Returns what is known when open axes have other sizes; nothing where none is open."""
        known = self.known
        opened = [i for i in self.proto.graph.input if i.name in self.inputs and open_axes(i)]
        if not opened:
            return []
        types = {name: known.types[name] for name in (*self.inputs, *known.constants) if name in known.types}
        types |= {info.name: _concrete(info, sizes) for info in opened}
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
    graph: ModelGraph, *, batch: int = 1, seed: int = 0, other_sizes: bool = False
) -> dict[str, np.ndarray[Any, Any]]:
    """Returns seeded random inputs that fit the graph.

    Args:
        graph: The model.
        batch: Used for the first axis, where every input leaves it open.
        seed: Of the generator.
        other_sizes: Whether the other open axes get sizes that the graph was not analysed with.

    Returns:
        Standard normal arrays for floating inputs, zeros for the others, keyed by input name.

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
                shape[0] = batch if graph.batch_is_symbolic() else shape[0]
            elif other_sizes:
                shape[axis] = OTHER_SIZES.get(shape[axis], shape[axis])
        if math.prod(shape) > MAX_FEED_ELEMENTS:
            raise ModelError(f"{graph.label}: input {name!r} must be of a size that can be fed, got {tuple(shape)}")
        dtype = onnx.helper.tensor_dtype_to_np_dtype(graph.dtypes[name])
        floating = np.issubdtype(dtype, np.floating)
        feeds[name] = rng.standard_normal(shape).astype(dtype) if floating else np.zeros(shape, dtype=dtype)
    return feeds
