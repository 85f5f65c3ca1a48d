"""Whether a model's open batch is open: exporters bake a batch of 1 into target shapes and leave the input's axis open.

Such a model fails on two images, or worse, mixes their rows. It is compared with itself: a run on two inputs against
two runs on one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from bocr_onnx.errors import ModelError
from bocr_onnx.graph import Array, ModelGraph, random_feeds
from bocr_onnx.runtime.session import open_session, run_session

TOLERANCE = 1e-3
"""Relative; kernels may sum in another order when the batch is larger."""


def close_batch(graph: ModelGraph) -> ModelGraph:
    """Returns the graph, its batch fixed at 1 where rows of a batch of 2 are not those of single runs.

    Args:
        graph: A model that runs at batch 1.

    Example:
        >>> import onnx
        >>> from bocr_onnx.graph import from_proto
        >>> proto = onnx.parser.parse_model('''
        ... <ir_version: 8, opset_import: ["" : 17]>
        ... baked (float[N, 4] x) => (float[N, 4] y) { m = ReduceMean <axes = [0]> (x)  y = Sub(x, m) }''')
        >>> close_batch(from_proto(proto)).batch_is_symbolic()
        False
    """
    if not graph.batch_is_symbolic() or _rows_are_apart(graph):
        return graph
    return replace(graph, symbolic={name: tuple(a for a in axes if a) for name, axes in graph.symbolic.items()})


def _rows_are_apart(graph: ModelGraph) -> bool:
    session = open_session(graph.proto)
    feeds = random_feeds(graph, batch=2)
    try:
        together = run_session(session, feeds)
        single = [run_session(session, _row(feeds, i)) for i in (0, 1)]
    except ModelError:
        return False
    return all(
        isinstance(pair, np.ndarray) and _agree(pair, i, row)
        for i, rows in enumerate(single)
        for pair, row in zip(together, rows, strict=True)
    )


def _row(feeds: Mapping[str, Array], i: int) -> dict[str, Array]:
    return {name: array[i : i + 1] for name, array in feeds.items()}


def _agree(pair: Array, i: int, row: Array) -> bool:
    """Returns whether row `i` of a batch of 2 is the output of a single run; outputs without a batch agree whole."""
    own = pair[i : i + 1] if pair.ndim and pair.shape[0] == 2 * row.shape[0] == 2 else pair
    if own.shape != row.shape:
        return False
    if own.dtype.kind != "f":
        return bool(np.array_equal(own, row))
    scale = float(np.abs(row[np.isfinite(row)]).max(initial=0.0))
    return bool(np.allclose(own, row, rtol=0, atol=max(TOLERANCE * scale, 1e-6), equal_nan=True))
