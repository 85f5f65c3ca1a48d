"""A model becomes the files of a phone, and is known to compute the same there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from bocr_onnx.deploy import NNAPI_NOTE, Partitions, Platform, partitions_of, with_shapes, write_ort
from bocr_onnx.errors import ModelError
from bocr_onnx.graph import ROUNDING, ModelGraph, random_feeds
from bocr_onnx.runtime import open_session, run_once, run_session

TOLERANCE = 1e-5
"""Largest difference of the .ort file's outputs over the largest output; other kernels may sum in another order."""


@dataclass(frozen=True, slots=True)
class Mobile:
    """Files for a phone.

    Attributes:
        ort: The .ort file.
        operators: The file that lists the operators which a runtime must be built with.
        size_bytes: Size of the .ort file.
        shapes: Sizes of the inputs, by name; empty where they were left open.
        largest_error: Largest difference of outputs from those of the .onnx file, over the largest output.
        partitions: What accelerators would run.
    """

    ort: str
    operators: str
    size_bytes: int
    shapes: Mapping[str, tuple[int, ...]]
    largest_error: float
    partitions: tuple[Partitions, ...]

    def as_json(self) -> dict[str, Any]:
        """Returns what ``bocr-onnx mobile --json`` prints."""
        return {"schema": 1, **asdict(self), "notes": [NNAPI_NOTE]}


def emit_mobile(
    model: ModelProto, graph: ModelGraph, folder: Path, name: str, platform: Platform, *, fixed: bool = True
) -> Mobile:
    """Returns the files of a model, written and compared with it; rounded ones are compared, but not refused.

    Args:
        model: The model.
        graph: Knows the sizes of the inputs.
        folder: Where they are written.
        name: Their name without an ending.
        platform: What they are optimized for.
        fixed: Whether sizes are fixed.

    Raises:
        ModelError: ONNX Runtime cannot convert it, or the .ort file computes something else.
        OutputError: The files cannot be written.
    """
    shapes = {name: _alone(graph, name) for name in graph.inputs} if fixed else {}
    ready = with_shapes(model, shapes) if fixed else model
    ort, operators = write_ort(ready, folder, name, platform)
    feeds = random_feeds(graph, batch=1)
    expected = run_once(ready, feeds)
    found = run_session(open_session(str(ort)), feeds, list(graph.outputs))
    error = max(_apart(x, y) for x, y in zip(expected, found, strict=True))
    if not error <= TOLERANCE and not any(node.op in ROUNDING for node in graph.nodes):
        raise ModelError(f"{ort} must compute what the model does within {TOLERANCE:g}, got {error:.2g}")
    return Mobile(str(ort), str(operators), ort.stat().st_size, shapes, error, partitions_of(ready))


def _alone(graph: ModelGraph, name: str) -> tuple[int, ...]:
    """Returns the shape of an input for one sample, where its batch is open."""
    shape = graph.shapes[name]
    return (1, *shape[1:]) if 0 in graph.symbolic.get(name, ()) else tuple(shape)


def _apart(x: Any, y: Any) -> float:
    if np.asarray(x).dtype.kind not in "fiub":
        return 0.0
    x, y = (np.asarray(values, dtype=np.float64) for values in (x, y))
    return float(np.abs(x - y).max(initial=0) / max(np.abs(x).max(initial=0), 1e-12))
