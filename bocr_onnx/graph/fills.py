"""Values for inputs: what a model can be run with that is about to be compared with another."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from bocr_onnx.graph.model import Array, ModelGraph, Node

Fill = Callable[[np.random.Generator, tuple[int, ...]], Array]

FILLS: Mapping[str, Fill] = {
    "uniform": lambda rng, shape: rng.random(shape),
    "ones": lambda rng, shape: np.ones(shape),
    "zeros": lambda rng, shape: np.zeros(shape),
}
"""What an input may hold instead of random numbers, where these turn the outputs into NaN: a mask, a scale."""

MAX_INTEGER = 255
"""Random integers are pixels: none is larger."""

MOVES = frozenset(
    "Cast Concat Expand Flatten Identity Reshape Slice Split Squeeze Tile Transpose Unsqueeze GatherElements".split()
)
"""Operators that hand their first input on as it is."""

PLACES: Mapping[str, tuple[int, str]] = {
    "Gather": (1, "axis"),
    "GatherElements": (1, "axis"),
    "GatherND": (1, ""),
    "Scatter": (1, "axis"),
    "ScatterElements": (1, "axis"),
    "ScatterND": (1, ""),
}
"""Operators that take integers for places -> position of these, and which attribute says along which axis."""

LENGTHS: Mapping[str, tuple[int, str]] = {
    "GRU": (4, ""),
    "LSTM": (4, ""),
    "RNN": (4, ""),
    "ReverseSequence": (1, "time_axis"),
}
"""Operators that take integers for lengths -> position of these, and which attribute says along which axis."""

COUNTS: Mapping[str, tuple[int, ...]] = {
    "Compress": (1,),
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Loop": (0,),
    "NonMaxSuppression": (2,),
    "OneHot": (1,),
    "Range": (1, 2),
    "Resize": (3,),
    "Slice": (2, 4),
    "Tile": (1,),
    "TopK": (1,),
}
"""Operators that take integers for counts, ends and steps, of which one is always possible -> positions of these."""

SIZES: Mapping[str, tuple[int, ...]] = {
    "CumSum": (1,),
    "If": (0,),
    "Loop": (1,),
    "MaxUnpool": (1, 2),
    "OneHot": (0,),
    "Pad": (1, 3),
    "Range": (0,),
    "Reshape": (1,),
    "Slice": (1, 3),
    "Split": (1,),
    "Squeeze": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
}
"""Operators that take integers for axes, amounts and sizes, of which only zero is tried -> positions of these."""


def fill(graph: ModelGraph, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike, rng: np.random.Generator) -> Array:
    """Returns values for an input.

    Args:
        graph: The model; `ModelGraph.fills` may say what the input is to hold.
        name: The input.
        shape: Shape of the array.
        dtype: Dtype of the array.
        rng: Source of the draw.

    Returns:
        Standard normal numbers for floating inputs. Integers in 0..255, as far as the element type holds them, and
        booleans of either kind; where an integer is a place or a length, one that exists; where it is a count, one;
        where it is an axis or a size, zero.
    """
    kind = np.dtype(dtype)
    chosen = graph.fills.get(name)
    if chosen is not None:
        return FILLS[chosen](rng, shape).astype(kind)
    if kind.kind in "biu":
        widest = (0, 1 if kind.kind == "b" else min(np.iinfo(kind).max, MAX_INTEGER))
        return np.asarray(rng.integers(*(bound(graph, name) or widest), shape, endpoint=True)).astype(kind)
    return np.zeros(shape, kind) if kind.kind in "SUO" else rng.standard_normal(shape).astype(kind)


def bound(graph: ModelGraph, name: str) -> tuple[int, int] | None:
    """Returns the smallest and largest integer that an input may hold; None where it reaches arithmetic alone.

    Example:
        >>> import onnx
        >>> from bocr_onnx.graph import from_proto
        >>> proto = onnx.parser.parse_model('''
        ... <ir_version: 8, opset_import: ["" : 17]>
        ... tiny (int64[N] i, uint8[N, 4] x) => (float[N, 4] y, float[N, 2] e)
        ... <float[2, 2] table = {1, 2, 3, 4}> { e = Gather(table, i)  y = Cast <to = 1> (x) }''')
        >>> graph = from_proto(proto)
        >>> bound(graph, "i"), bound(graph, "x")
        ((0, 1), None)
    """
    found: list[tuple[int, int]] = []
    waiting, seen = [name], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for index, position in graph.readers.get(name, ()):
            node = graph.nodes[index]
            found += _asked(graph, node, position)
            if node.op in MOVES and not node.domain and position == 0:
                waiting.extend(node.outputs)
        if any(name in node.captures for node in graph.nodes):
            found.append((0, 0))
    if not found:
        return None
    low = max(least for least, _ in found)
    high = min(most for _, most in found)
    return (low, high) if low <= high else (0, 0)


def _asked(graph: ModelGraph, node: Node, position: int) -> list[tuple[int, int]]:
    """Returns the bounds that one reader sets, none where it computes with the integers."""
    if node.domain:
        return []
    if position in SIZES.get(node.op, ()):
        return [(0, 0)]
    if position in COUNTS.get(node.op, ()):
        return [(1, 1)]
    for table, least in ((PLACES, 0), (LENGTHS, 1)):
        place, attribute = table.get(node.op, (-1, ""))
        if position == place:
            shape = graph.shapes.get(node.inputs[0], ())
            axis = int(node.attributes.get(attribute, 0))
            size = shape[axis] if -len(shape) <= axis < len(shape) else 1
            return [(least, max(size - 1 + least, least))]
    return []
