"""Values for inputs: what a model can be run with that is about to be compared with another."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from bocr_onnx.graph.model import Array, ModelGraph

Fill = Callable[[np.random.Generator, tuple[int, ...]], Array]

FILLS: Mapping[str, Fill] = {
    "zeros": lambda rng, shape: np.zeros(shape),
    "ones": lambda rng, shape: np.ones(shape),
    "uniform": lambda rng, shape: rng.random(shape),
}
"""What an input may hold instead of random numbers, where these turn the outputs into NaN: a mask, a scale."""

MAX_INTEGER = 255
"""Random integers are pixels: none is larger."""

MOVES = frozenset(
    "Cast Concat Expand Flatten Identity Reshape Slice Split Squeeze Tile Transpose Unsqueeze GatherElements".split()
)
"""Operators that hand their first input on as it is."""

INDICES: Mapping[str, tuple[int, ...]] = {
    "Compress": (1,),
    "ConstantOfShape": (0,),
    "CumSum": (1,),
    "Expand": (1,),
    "GRU": (4,),
    "Gather": (1,),
    "GatherElements": (1,),
    "GatherND": (1,),
    "If": (0,),
    "LSTM": (4,),
    "Loop": (0, 1),
    "MaxUnpool": (1, 2),
    "NonMaxSuppression": (2,),
    "OneHot": (0, 1),
    "Pad": (1, 3),
    "RNN": (4,),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (3,),
    "ReverseSequence": (1,),
    "Scatter": (1,),
    "ScatterElements": (1,),
    "ScatterND": (1,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
}
"""Operators that take integers for places, counts or sizes -> positions of these."""


def fill(graph: ModelGraph, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike, rng: np.random.Generator) -> Array:
    """Returns values for an input.

    Args:
        graph: The model; `ModelGraph.fills` may say what the input is to hold.
        name: The input.
        shape: Of the array.
        dtype: Of the array.
        rng: Source of the draw.

    Returns:
        Standard normal numbers for floating inputs. Integers in 0..255, as far as the element type holds them, and
        booleans of either kind; zeros where an integer says a place, a count or a size.
    """
    kind = np.dtype(dtype)
    chosen = graph.fills.get(name)
    if chosen is not None:
        return FILLS[chosen](rng, shape).astype(kind)
    if kind.kind in "iu" and not is_index(graph, name):
        most = min(np.iinfo(kind).max, MAX_INTEGER)
        return rng.integers(0, most, shape, endpoint=True).astype(kind)
    if kind.kind == "b" and not is_index(graph, name):
        return rng.random(shape) < 0.5
    return np.zeros(shape, kind) if kind.kind in "iubSUO" else rng.standard_normal(shape).astype(kind)


def is_index(graph: ModelGraph, name: str) -> bool:
    """Returns whether an input, as it is or moved, says a place, a count or a size anywhere.

    Example:
        >>> import onnx
        >>> from bocr_onnx.graph import from_proto
        >>> proto = onnx.parser.parse_model('''
        ... <ir_version: 8, opset_import: ["" : 17]>
        ... tiny (int64[N] i, uint8[N, 4] x) => (float[N, 4] y, float[N, 2] e)
        ... <float[2, 2] table = {1, 2, 3, 4}> { e = Gather(table, i)  y = Cast <to = 1> (x) }''')
        >>> graph = from_proto(proto)
        >>> is_index(graph, "i"), is_index(graph, "x")
        (True, False)
    """
    waiting, seen = [name], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for index, position in graph.readers.get(name, ()):
            node = graph.nodes[index]
            if position in INDICES.get(node.op, ()) and not node.domain:
                return True
            if node.op in MOVES and not node.domain:
                waiting.extend(node.outputs)
        if any(name in node.captures for node in graph.nodes):
            return True
    return False
