"""Statistics recovery: after a cut, every convolution's output gets the original's mean and variance back.

In the slim model every convolution y is followed by

    y' = (y - mean(y)) * s + E[y_original],    s = std(y_original) / std(y)

with mean and std over the batch, so one forward pass settles all layers at once (what re-estimating the statistics
of BatchNormalization does). s and the shift are then absorbed into the weights and the bias. Maps of one position
are left alone: their batch statistics say too little.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper

from bocr_onnx.graph import HALF, Array, ModelGraph, Operand, feeds, widened
from bocr_onnx.groups import GroupIndex
from bocr_onnx.recovery.moments import Moments
from bocr_onnx.recovery.patches import Affine, Floats, bias_of, kept_outputs, to_matrix
from bocr_onnx.runtime.session import open_session, run_session
from bocr_onnx.slimming import Mask, cut, cut_operand, on_grid

MAX_SCALE = 4.0
"""No output is stretched or shrunk further: a channel that died cannot be brought back by scaling noise."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Mean and variance of the outputs of one operator on the original, shape `(n_outputs,)` each."""

    mean: Floats
    variance: Floats


def output_statistics(
    graph: ModelGraph, affines: tuple[Affine, ...], moments: Mapping[int, Moments]
) -> dict[int, Statistics]:
    """Returns the statistics of every convolution's output, by node index, from the moments of its input."""
    made = {}
    for affine in affines:
        shape = graph.shapes.get(affine.node.outputs[0])
        if affine.node.op != "Conv" or affine.node.index not in moments or shape is None or np.prod(shape[2:]) <= 1:
            continue
        known = moments[affine.node.index]
        weight = graph.operand(affine.weight)
        assert weight is not None
        matrix = to_matrix(affine, graph, weight).reshape(affine.blocks, -1, affine.n_columns)
        mean = np.matmul(matrix, known.mean[:, :, None]).reshape(-1) + bias_of(affine, graph)
        variance = np.sum(np.matmul(matrix, known.covariance) * matrix, axis=2).reshape(-1)
        made[affine.node.index] = Statistics(mean, np.maximum(variance, 0))
    return made


def restore_statistics(
    index: GroupIndex,
    affines: tuple[Affine, ...],
    statistics: Mapping[int, Statistics],
    mask: Mask,
    weights: Mapping[Operand, Array],
    images: Array,
) -> dict[Operand, Array]:
    """Returns weights and biases with the original's output statistics restored, in slim shape.

    Args:
        index: Groups of the model.
        affines: Its weighted operators.
        statistics: From `output_statistics`.
        mask: Which channels stay.
        weights: Weights of the slim model that differ from the cut originals.
        images: Preprocessed, one batch.
    """
    graph = index.graph
    wanted = [a for a in affines if a.node.index in statistics and a.bias is not None]
    slim = cut(index, mask, weights)
    goals = {}
    for affine in wanted:
        outputs = kept_outputs(affine, index, mask)
        found = statistics[affine.node.index]
        goals[affine.node.outputs[0]] = Statistics(found.mean[outputs], found.variance[outputs])
    ranks = {name: len(graph.shapes[name]) for name in goals}
    measured = _measure(slim, goals, ranks, feeds(graph, images))
    changed = dict(weights)
    for affine in wanted:
        name = affine.node.outputs[0]
        scale = _scale(goals[name], measured[name])
        weight = weights.get(affine.weight)
        weight = cut_operand(index, mask, affine.weight) if weight is None else weight
        assert affine.bias is not None
        bias = weights.get(affine.bias)
        if bias is None:
            bias = bias_of(affine, graph)[kept_outputs(affine, index, mask)]
        shift = goals[name].mean + scale * (bias - measured[name].mean)
        scaled = (weight * scale.reshape(-1, *[1] * (weight.ndim - 1))).astype(weight.dtype)
        changed[affine.weight] = on_grid(index, mask, affine.weight, scaled)
        changed[affine.bias] = on_grid(index, mask, affine.bias, shift.astype(weight.dtype))
    return changed


def _scale(goal: Statistics, found: Statistics) -> Floats:
    ratio = np.sqrt((goal.variance + 1e-12) / (found.variance + 1e-12))
    return np.asarray(np.clip(ratio, 1 / MAX_SCALE, MAX_SCALE))


def _measure(
    slim: ModelProto, goals: Mapping[str, Statistics], ranks: Mapping[str, int], inputs: Mapping[str, Array]
) -> dict[str, Statistics]:
    if any(tensor.data_type in HALF for tensor in slim.graph.initializer):
        slim = widened(slim)
        inputs = {name: x.astype(np.float32) if x.dtype.kind == "f" else x for name, x in inputs.items()}
    model = _with_batch_statistics(slim, goals, ranks)
    names = [f"{name}{suffix}" for name in goals for suffix in (".mean", ".variance")]
    found = iter(run_session(open_session(model), inputs, names))
    return {
        name: Statistics(next(found).reshape(-1).astype(np.float64), next(found).reshape(-1).astype(np.float64))
        for name in goals
    }


def _with_batch_statistics(slim: ModelProto, goals: Mapping[str, Statistics], ranks: Mapping[str, int]) -> ModelProto:
    """Returns the slim model with every convolution's output normalized to its goal, statistics as outputs."""
    made = ModelProto()
    made.CopyFrom(slim)
    graph = made.graph
    opset = next(o.version for o in made.opset_import if o.domain in ("", "ai.onnx"))
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        goal = goals.get(node.output[0]) if node.output else None
        if goal is None:
            graph.node.append(node)
            continue
        name = node.output[0]
        rank = ranks[name]
        node.output[0] = f"{name}.raw"
        graph.node.append(node)
        graph.node.extend(_normalization(name, rank, opset))
        shape = [1, -1, *[1] * (rank - 2)]
        for suffix, value in ((".goal_mean", goal.mean), (".goal_std", np.sqrt(goal.variance))):
            array = value.astype(np.float32).reshape(shape)
            graph.initializer.append(numpy_helper.from_array(array, f"{name}{suffix}"))
        graph.output.extend(onnx.ValueInfoProto(name=f"{name}{s}") for s in (".mean", ".variance"))
    graph.initializer.append(numpy_helper.from_array(np.array(1e-12, dtype=np.float32), "bocr.epsilon"))
    graph.initializer.append(numpy_helper.from_array(np.array(1 / MAX_SCALE, dtype=np.float32), "bocr.low"))
    graph.initializer.append(numpy_helper.from_array(np.array(MAX_SCALE, dtype=np.float32), "bocr.high"))
    del graph.value_info[:]
    return made


def _normalization(name: str, rank: int, opset: int) -> list[onnx.NodeProto]:
    axes = [0, *range(2, rank)]

    def mean(source: str, target: str) -> onnx.NodeProto:
        if opset >= 18:
            return onnx.helper.make_node("ReduceMean", [source, f"bocr.axes{rank}"], [target])
        return onnx.helper.make_node("ReduceMean", [source], [target], axes=axes)

    node = onnx.helper.make_node
    steps = [
        mean(f"{name}.raw", f"{name}.mean"),
        node("Sub", [f"{name}.raw", f"{name}.mean"], [f"{name}.centred"]),
        node("Mul", [f"{name}.centred", f"{name}.centred"], [f"{name}.squared"]),
        mean(f"{name}.squared", f"{name}.variance"),
        node("Add", [f"{name}.variance", "bocr.epsilon"], [f"{name}.positive"]),
        node("Sqrt", [f"{name}.positive"], [f"{name}.std"]),
        node("Div", [f"{name}.goal_std", f"{name}.std"], [f"{name}.ratio"]),
        node("Clip", [f"{name}.ratio", "bocr.low", "bocr.high"], [f"{name}.scale"]),
        node("Mul", [f"{name}.centred", f"{name}.scale"], [f"{name}.scaled"]),
        node("Add", [f"{name}.scaled", f"{name}.goal_mean"], [name]),
    ]
    if opset >= 18:
        constant = numpy_helper.from_array(np.array(axes, dtype=np.int64))
        steps.insert(0, node("Constant", [], [f"{name}.axes"], value=constant))
        for step in steps:
            if step.op_type == "ReduceMean":
                step.input[1] = f"{name}.axes"
    if opset < 11:
        steps[-3] = node("Clip", [f"{name}.ratio"], [f"{name}.scale"], min=1 / MAX_SCALE, max=MAX_SCALE)
    return steps
