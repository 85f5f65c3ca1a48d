"""Normalization restored after convolutions that it was folded into, during training.

Notation: c the output of a convolution, m and v its mean and variance per channel over images, e a small number.

    put in:    y = g (c - m) / sqrt(v + e) + b     with g = sqrt(v + e), b = m, so that y = c
    fold:      W' = W g / sqrt(v + e),  bias' = (bias - m) g / sqrt(v + e) + b     with what training made of them

e is at least a thousandth of the layer's mean variance: a channel that hardly varies is not blown up by the
variance of a batch.

References:
    Ioffe, Szegedy: Batch Normalization, 2015, algorithm 2.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from onnx import ModelProto, helper, numpy_helper
from torch import Tensor

from bocr_onnx.graph import Array, Edit, ModelGraph, Node, apply_edit, from_proto
from bocr_onnx.training.interpreter import OnnxModule
from bocr_onnx.training.watch import learnt

EPSILON = 1e-5
"""Smallest e."""

FLOOR = 1e-3
"""Share of the layer's mean variance that e is at least."""

MIN_OPSET = 9
"""First operator set whose BatchNormalization this module writes."""


@dataclass(frozen=True, slots=True)
class Normalized:
    """A model with normalization put back.

    Attributes:
        plain: The model as it was.
        graph: The same function, with a BatchNormalization after some convolutions.
        convs: First output of each of these convolutions in `plain`.
    """

    plain: ModelGraph
    graph: ModelGraph
    convs: tuple[str, ...]


def normalize(plain: ModelGraph, batches: Iterable[tuple[Tensor, ...]]) -> Normalized:
    """Returns a model of the same function with BatchNormalization after the convolutions it was folded into.

    These are the convolutions with a bias and more than one output position whose weights nobody shares and that no
    BatchNormalization follows. Inference changes by rounding only.

    Args:
        plain: The model.
        batches: Inputs to measure on, as the model reads them.
    """
    convs = tuple(node for node in plain.nodes if _was_folded(plain, node)) if plain.opset >= MIN_OPSET else ()
    if not convs:
        return Normalized(plain, plain, ())
    moments = _moments(plain, [node.outputs[0] for node in convs], batches)
    proto = ModelProto()
    proto.CopyFrom(plain.proto)
    by_output = {n.output[0]: (i, n) for i, n in enumerate(proto.graph.node) if n.output}
    places = sorted((by_output[node.outputs[0]][0], node.outputs[0]) for node in convs)
    for index, name in reversed(places):
        _insert(proto, index, name, *moments[name])
    graph = replace(from_proto(proto, input_shapes=plain.input_shapes), symbolic=plain.symbolic)
    return Normalized(plain, graph, tuple(name for _, name in places))


def fold(normalized: Normalized, trained: ModelProto) -> ModelProto:
    """Returns the plain model with what training made of the normalized one.

    Args:
        normalized: What was trained.
        trained: `normalized.graph` with other weights.
    """
    if not normalized.convs:
        return trained
    plain, graph = normalized.plain, from_proto(trained, input_shapes=normalized.plain.input_shapes)
    operands = {}
    for node in plain.nodes:
        follows = node.outputs[0] in normalized.convs
        place = graph.producer.get(_inner(node.outputs[0]) if follows else node.outputs[0])
        if place is None:  # a constant by now, of which nothing trains
            continue
        twin = graph.nodes[place]
        found = {p: graph.operand((twin.index, p)) for p in range(len(twin.inputs))}
        if follows:
            norm = graph.nodes[graph.producer[node.outputs[0]]]
            found |= _folded(graph, found[1], found[2], norm)
        for position, array in found.items():
            before = plain.operand((node.index, position))
            if array is not None and before is not None and array.tobytes() != before.tobytes():
                operands[node.index, position] = array
    return apply_edit(plain, Edit(operands=operands))


def _folded(graph: ModelGraph, weight: Array | None, bias: Array | None, norm: Node) -> dict[int, Array]:
    assert weight is not None
    assert bias is not None
    scale, offset, mean, var = (_wide(graph.operand((norm.index, p))) for p in range(1, 5))
    factor = scale / np.sqrt(var + norm.attributes["epsilon"])
    per_filter = factor.reshape(-1, *[1] * (weight.ndim - 1))
    return {
        1: (weight * per_filter).astype(weight.dtype),
        2: ((bias - mean) * factor + offset).astype(bias.dtype),
    }


def _wide(array: Array | None) -> Array:
    assert array is not None
    return array.astype(np.float64)


def _was_folded(graph: ModelGraph, node: Node) -> bool:
    if node.op != "Conv" or node.domain or len(node.inputs) < 3 or not node.inputs[2]:
        return False
    weight, bias, output = graph.operand((node.index, 1)), graph.operand((node.index, 2)), node.outputs[0]
    if weight is None or bias is None or weight.dtype != np.float32:
        return False
    positions = np.prod(graph.shapes[output][2:], dtype=int) if output in graph.shapes else 1
    followed = any(n.op == "BatchNormalization" and n.input(0) == output for n in graph.nodes)
    readers = [n for n in graph.nodes if node.inputs[1] in n.inputs]
    return bool(positions > 1) and not followed and len(readers) == 1


def _moments(
    plain: ModelGraph, names: list[str], batches: Iterable[tuple[Tensor, ...]]
) -> dict[str, tuple[Array, Array]]:
    """Returns mean and variance, `(n_channels,)` float64 each, of named tensors."""
    module = OnnxModule(learnt(plain, tuple(names))).eval()
    n = 0
    sums = [torch.zeros(2, 1, dtype=torch.float64)] * len(names)
    with torch.no_grad():
        for batch in batches:
            outputs = module(*batch)
            n += len(batch[0])
            sums = [total + _sums(output) * len(batch[0]) for total, output in zip(sums, outputs, strict=True)]
    found = {}
    for name, total in zip(names, sums, strict=True):
        mean, square = (total / max(n, 1)).numpy()
        found[name] = (mean, np.maximum(square - mean**2, 0.0))
    return found


def _sums(tensor: Tensor) -> Tensor:
    """Returns the means of x and of x squared per channel, `(2, n_channels)` float64."""
    rows = tensor.transpose(0, 1).flatten(1).double()
    return torch.stack([rows.mean(1), rows.square().mean(1)])


def _insert(proto: ModelProto, index: int, name: str, mean: Array, var: Array) -> None:
    node = proto.graph.node[index]
    epsilon = max(EPSILON, FLOOR * float(var.mean()))
    arrays = {"scale": np.sqrt(var + epsilon), "offset": mean, "mean": mean, "var": var}
    names = [f"{name}.norm.{key}" for key in arrays]
    proto.graph.initializer.extend(
        numpy_helper.from_array(a.astype(np.float32), n) for n, a in zip(names, arrays.values(), strict=True)
    )
    node.output[0] = _inner(name)
    norm = helper.make_node(
        "BatchNormalization", [_inner(name), *names], [name], f"{name}.norm", epsilon=epsilon, momentum=0.9
    )
    proto.graph.node.insert(index + 1, norm)


def _inner(name: str) -> str:
    """Returns the name of a convolution's own output where a normalization has taken its old one."""
    return f"{name}.plain"
