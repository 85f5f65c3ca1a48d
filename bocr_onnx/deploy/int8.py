"""Static int8 by ONNX Runtime: QuantizeLinear and DequantizeLinear around the operators that have integer kernels.

Which type activations take decides the speed: on x86 unsigned ones, on Arm often signed ones, and only the device can
tell. What nothing with weights follows, such as the decoding of boxes, stays in floating point: one scale for scores
and coordinates together would leave nothing of the scores.
"""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, version_converter

from bocr_onnx.errors import ModelError
from bocr_onnx.graph import Array, ModelGraph, Node, from_proto, is_weighted, with_outputs
from bocr_onnx.runtime import open_session, run_session

Activations = Literal["uint8", "int8"]

LEAST_OPSET = 13
"""Scales per channel have an axis from this one on."""

FLOAT_KERNELS = ("Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "ConvTranspose")
"""Operators of an optimized graph that multiply floating-point weights."""

Floats = npt.NDArray[np.float64]
Feeds = Sequence[Mapping[str, Array]]


@dataclass(frozen=True, slots=True)
class Int8:
    """How a model is quantized.

    Attributes:
        activations: Their type; weights are int8, a scale per channel.
        narrow: Whether weights take seven bits, so that x86 kernels without VNNI do not saturate.
        left: Names of nodes that stay in floating point.
    """

    activations: Activations
    narrow: bool = False
    left: frozenset[str] = frozenset()


def prepared(model: ModelProto) -> ModelProto:
    """Returns a copy whose norms are folded and whose nodes all have names, at an opset that int8 needs.

    A norm between a convolution and its activation would be computed in floating point, between two roundings.

    Raises:
        ModelError: It cannot be brought to that opset, or ONNX Runtime rejects it.
    """
    made = ModelProto()
    made.CopyFrom(model)
    opset = next((o.version for o in made.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < LEAST_OPSET:
        try:
            made = version_converter.convert_version(made, LEAST_OPSET)
        except Exception as error:  # onnx raises its own C++ exception classes
            reason = str(error).strip().splitlines()[0]
            raise ModelError(f"a model must have opset {LEAST_OPSET} for int8, got {opset}: {reason}") from error
        made.ir_version = max(made.ir_version, 7)
    with tempfile.TemporaryDirectory(prefix="bocr-onnx-") as folder:
        open_session(made, optimized=Path(folder) / "folded.onnx", basic=True)
        made = onnx.load(Path(folder) / "folded.onnx")
    taken = {node.name for node in made.graph.node}
    for number, node in enumerate(made.graph.node):
        if not node.name:
            node.name = next(name for name in _names(node.op_type, number) if name not in taken)
            taken.add(node.name)
    return made


def _names(op: str, number: int) -> Iterator[str]:
    yield f"{op}_{number}"
    yield from (f"{op}_{number}_{i}" for i in range(1, 1 << 30))


def tail_of(graph: ModelGraph) -> frozenset[str]:
    """Returns the names of the nodes that nothing with weights follows, those with weights aside."""
    leads: set[str] = set()
    for node in reversed(graph.nodes):
        if is_weighted(node) or any(name in leads for name in node.outputs):
            leads.update(name for name in (*node.inputs, *node.captures) if name)
    return frozenset(
        node.name for node in graph.nodes if not is_weighted(node) and not any(name in leads for name in node.outputs)
    )


def quantize(model: ModelProto, feeds: Feeds, settings: Int8) -> ModelProto:
    """Returns the int8 model.

    Args:
        model: From `prepared`.
        feeds: Inputs that the ranges of activations are taken from.
        settings: How.

    Raises:
        ModelError: ONNX Runtime cannot quantize it.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(feeds)

        def get_next(self) -> Mapping[str, Array] | None:
            return next(self._left, None)

    with tempfile.TemporaryDirectory(prefix="bocr-onnx-") as folder, _silent():
        source, path = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)  # a model in memory is written with external data, which ONNX then refuses to read
        try:
            quantize_static(
                source, path, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, reduce_range=settings.narrow,
                activation_type=QuantType.QUInt8 if settings.activations == "uint8" else QuantType.QInt8,
                weight_type=QuantType.QInt8, nodes_to_exclude=sorted(settings.left),
            )  # fmt: skip
        except Exception as error:  # anything that a quantizer of any graph may raise
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"the model must be one that ONNX Runtime can quantize, got: {reason}") from error
        return onnx.load(path)


@contextmanager
def _silent() -> Iterator[None]:
    """Keeps ONNX Runtime's advice to run a preparation that changes nothing here from the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def float_kernels(model: ModelProto) -> dict[str, int]:
    """Returns how many operators of each kind still multiply in floating point after ONNX Runtime's optimizations."""
    with tempfile.TemporaryDirectory(prefix="bocr-onnx-") as folder:
        path = Path(folder) / "optimized.onnx"
        open_session(model, optimized=path)
        return dict(Counter(node.op_type for node in onnx.load(path).graph.node if node.op_type in FLOAT_KERNELS))


def costly(model: ModelProto, quantized: ModelProto, feeds: Feeds) -> tuple[str, ...]:
    """Returns the names of the operators with weights that are quantized, the one that loses most first.

    What an operator loses is the noise over the signal of what it reads, before and after rounding: of the worst of its
    inputs, in the mean of its channels. Over all channels together, one that is large would hide what others lose.

    Args:
        model: From `prepared`.
        quantized: From `quantize`.
        feeds: Inputs.
    """
    graph = from_proto(quantized)
    rounded, lowest = {}, {}
    for node in graph.nodes:
        source = graph.rounded(node.inputs[0]) if node.op == "DequantizeLinear" else None
        if source is not None and source.op == "QuantizeLinear":
            rounded[node.outputs[0]] = source.inputs[0]
            lowest[node.outputs[0]] = _lowest(graph, source)
    names = sorted({name for pair in rounded.items() for name in pair} - set(graph.inputs))
    session = open_session(with_outputs(quantized, names))
    noise: dict[str, Floats | float] = dict.fromkeys(rounded, 0.0)
    signal: dict[str, Floats | float] = dict.fromkeys(rounded, 1e-30)
    for feed in feeds:
        found = dict(zip(names, run_session(session, feed, names), strict=True)) | dict(feed)
        for after, before in rounded.items():
            x = np.maximum(found[before].astype(np.float64), lowest[after])  # a Relu may be merged into the rounding
            noise[after] = noise[after] + _per_channel(found[after] - x)
            signal[after] = signal[after] + _per_channel(x)
    shares = {name: float(np.mean(np.minimum(noise[name] / np.asarray(signal[name]), 1))) for name in rounded}
    named = {node.name for node in model.graph.node}
    losses = {
        node.name: max((shares[name] for name in node.inputs if name in rounded), default=0.0)
        for node in graph.nodes
        if is_weighted(node) and node.name in named
    }
    return tuple(sorted((name for name, loss in losses.items() if loss > 0), key=lambda name: -losses[name]))


def _lowest(graph: ModelGraph, node: Node) -> float:
    """Returns the smallest number that a QuantizeLinear of one scale keeps."""
    scale, zero = (graph.constant(node.input(at)) for at in (1, 2))
    if scale is None or zero is None or scale.size != 1:
        return -np.inf
    return float(scale.reshape(())) * (int(np.iinfo(zero.dtype).min) - int(zero.reshape(())))


def _per_channel(array: Array) -> Floats:
    """Returns the sum of squares along all axes but the second, or along all where there is none."""
    axes = tuple(axis for axis in range(array.ndim) if axis != 1)
    return np.asarray(np.square(array).sum(axis=axes))


def with_neighbours(graph: ModelGraph, names: Iterable[str]) -> frozenset[str]:
    """Returns names of operators with those of the nodes that would round what they read, or are fused into them.

    That is, before each, what makes its input: activations and norms, up to and with the operator with weights before
    them; after it, an activation.
    """
    chosen = set(names)
    for node in [node for node in graph.nodes if node.name in chosen]:
        readers = graph.readers.get(node.outputs[0], ())
        if len(readers) == 1 and graph.nodes[readers[0][0]].op in ("Relu", "Clip"):
            chosen.add(graph.nodes[readers[0][0]].name)
        before = node
        while len(read := [n for n in before.inputs if graph.constant(n) is None and n in graph.producer]) == 1:
            before = graph.nodes[graph.producer[read[0]]]
            chosen.add(before.name)
            if is_weighted(before):
                break
    return frozenset(chosen)
