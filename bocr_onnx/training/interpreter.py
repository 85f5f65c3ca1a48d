"""An ONNX graph as a torch module: the weights train, everything else computes what the file says.

ModelGraph -> OnnxModule -> (training) -> export -> ModelProto, the same graph with other weights
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from onnx import ModelProto
from torch import Tensor, nn

from bocr_onnx.errors import TrainingError, did_you_mean
from bocr_onnx.graph import Array, Edit, ModelGraph, Node, Operand, apply_edit, random_feeds
from bocr_onnx.training.naming import place
from bocr_onnx.training.operators import Context, Operator, find_operator, known_operators
from bocr_onnx.training.operators.registry import to_tensor

Slot = str | Operand
"""Where a run finds a tensor: by name; the running statistics of a BatchNormalization by operand."""

Reference = Callable[[dict[str, Array]], list[Array]]
"""Computes the outputs of the file by other means, for comparison."""

WEIGHTS: Mapping[str, tuple[int, ...]] = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "Einsum": (0, 1),
}
"""Operands that train and decay."""

OFFSETS: Mapping[str, tuple[int, ...]] = {
    "Conv": (2,),
    "ConvTranspose": (2,),
    "Gemm": (2,),
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "PRelu": (1,),
    "Add": (0, 1),
    "Mul": (0, 1),
}
"""Operands that train and do not decay: biases, norms, slopes."""

STATISTICS: Mapping[str, tuple[int, ...]] = {"BatchNormalization": (3, 4)}
"""Operands that follow the data."""

HALF_TOLERANCE = 0.01
"""Tolerance for half types, whose rounding adds up over the layers."""

SMALLEST_SCALE = 0.01
"""Smaller outputs are compared as if this large: a runtime's Sigmoid of -12 is right to 1e-7, not to 1e-4 of it."""

ARITHMETIC = frozenset({"Add", "Mul"})
"""Operators whose constants may be biases and scales, or may be arithmetic."""


@dataclass(frozen=True, slots=True)
class Step:
    """One node of the run.

    Attributes:
        node: The node.
        operator: What computes it.
        slots: Where its inputs are; None where an optional one is omitted.
        free: Tensors that nobody reads afterwards.
    """

    node: Node
    operator: Operator
    slots: tuple[Slot | None, ...]
    free: tuple[str, ...]


class OnnxModule(nn.Module):
    """Runs a `ModelGraph`; its floating-point weights are parameters.

    A weight that several nodes read is one parameter. Running statistics are buffers, one per operand, because
    a file may store equal ones once. All other constants, and shape arithmetic, stay on the host. Weights of a
    half type train in float32. Nodes that no output needs are left out.

    Parameters and buffers have the names of the file, as `bocr_onnx.training.naming` places them.

    Attributes:
        graph: The graph as loaded; never changed.

    Args:
        graph: The graph.

    Raises:
        TrainingError: A node has a subgraph, no function computes it, or an optional output is read that its
            function does not compute.
    """

    graph: ModelGraph

    def __init__(self, graph: ModelGraph) -> None:
        super().__init__()
        self.graph = graph
        self._steps = _plan(graph)
        roles = _roles(graph, self._steps)
        self._weight_names = tuple(roles)
        self._decaying = frozenset(name for name, decays in roles.items() if decays)
        self._places = tuple(place(self, n, nn.Parameter(to_tensor(graph.constants[n]))) for n in roles)
        self._statistics = tuple(s for step in self._steps for s in step.slots if isinstance(s, tuple))
        names = [_name(graph, at) for at in self._statistics]
        self._buffers_at = tuple(place(self, name, to_tensor(graph.constants[name])) for name in names)
        self._constants = _plain_constants(graph, self._steps, set(roles))

    def named_initializers(self) -> Iterator[tuple[str, Tensor]]:
        """Yields the ONNX name and the tensor of every parameter, then of every running statistic."""
        yield from zip(self._weight_names, self._weights, strict=True)
        for at, found in zip(self._statistics, self._buffers_at, strict=True):
            yield _name(self.graph, at), found.tensor

    def parameter_groups(self, weight_decay: float) -> list[dict[str, object]]:
        """Returns two groups for an optimizer: weights that decay; norms, biases and slopes that do not."""
        named = list(zip(self._weight_names, self._weights, strict=True))
        return [
            {"params": [p for n, p in named if n in self._decaying], "weight_decay": weight_decay},
            {"params": [p for n, p in named if n not in self._decaying], "weight_decay": 0.0},
        ]

    def operand_tensors(self) -> Iterator[tuple[Operand, Tensor]]:
        """Yields every trained tensor at every operand that reads it."""
        weights = dict(zip(self._weight_names, self._weights, strict=True))
        buffers = self._running()
        for step in self._steps:
            for position, slot in enumerate(step.slots):
                if isinstance(slot, tuple):
                    yield slot, buffers[slot]
                elif slot in weights:
                    yield (step.node.index, position), weights[slot]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Returns the outputs in graph order.

        Args:
            inputs: In graph order.

        Raises:
            TrainingError: An operator's attributes ask for something that is not supported.
        """
        given = dict(zip(self.graph.inputs, inputs, strict=True))
        return self.run_part(0, len(self._steps), given, self.graph.outputs)

    @property
    def steps(self) -> tuple[Step, ...]:
        """Returns the nodes that run, in their order."""
        return self._steps

    def run_part(self, start: int, stop: int, given: Mapping[str, Tensor], wanted: Sequence[str]) -> tuple[Tensor, ...]:
        """Returns tensors that some of the steps make.

        Args:
            start: Number of the first step.
            stop: Number after the last step.
            given: What they read of what others make.
            wanted: Tensors that are read by later steps, or outputs.

        Raises:
            TrainingError: An operator's attributes ask for something that is not supported.
        """
        tensors: dict[Slot, Tensor] = {}
        tensors.update(self._constants)
        tensors.update(zip(self._weight_names, self._weights, strict=True))
        tensors.update(self._running().items())
        tensors.update(given)
        context = Context(self.graph.label, self.graph.opset, self.training)
        for step in self._steps[start:stop]:
            self._run(step, tensors, context)
        return tuple(tensors[name] for name in wanted)

    @property
    def _weights(self) -> list[nn.Parameter]:
        """Returns the parameters, in the order of their names."""
        return [cast("nn.Parameter", found.tensor) for found in self._places]

    def _running(self) -> dict[Operand, Tensor]:
        """Returns the running statistics by operand."""
        return {at: found.tensor for at, found in zip(self._statistics, self._buffers_at, strict=True)}

    def weights_of(self, start: int, stop: int) -> list[nn.Parameter]:
        """Returns the parameters that some of the steps read."""
        read = {slot for step in self._steps[start:stop] for slot in step.slots if isinstance(slot, str)}
        return [w for name, w in zip(self._weight_names, self._weights, strict=True) if name in read]

    def _run(self, step: Step, tensors: dict[Slot, Tensor], context: Context) -> None:
        read = [None if slot is None else tensors[slot] for slot in step.slots]
        try:
            made = step.operator.function(step.node, read, context)
        except (RuntimeError, IndexError, ValueError) as error:
            shapes = [None if t is None else tuple(t.shape) for t in read]
            raise TrainingError(
                f"{context.label}: node {step.node.name!r} ({step.node.op}) must fit inputs of shapes "
                f"{shapes}, got: {str(error).splitlines()[0]}"
            ) from error
        results = made if isinstance(made, tuple) else (made,)
        tensors.update((name, t) for name, t in zip(step.node.outputs, results, strict=False) if name)
        for name in step.free:
            del tensors[name]


def _plan(graph: ModelGraph) -> tuple[Step, ...]:
    """Returns the steps that the outputs need, in topological order.

    No operator with a subgraph has a function, so that captured tensors need no thought.
    """
    wanted = set(graph.outputs)
    last: dict[str, int] = {}
    live: list[tuple[Node, Operator]] = []
    for node in reversed(graph.nodes):
        read = [position for position, name in enumerate(node.outputs) if name in wanted]
        if not read or all(name in graph.constants for name in node.outputs if name in wanted):
            continue
        live.append((node, _operator(graph, node, max(read))))
        for name in filter(None, node.inputs):
            wanted.add(name)
            last.setdefault(name, node.index)
    made = {name for node, _ in live for name in node.outputs} - set(graph.outputs)
    return tuple(
        Step(
            node,
            operator,
            tuple(_slot(graph, node, position) for position in range(len(node.inputs))),
            tuple(name for name in dict.fromkeys(node.inputs) if name in made and last[name] == node.index),
        )
        for node, operator in reversed(live)
    )


def _operator(graph: ModelGraph, node: Node, last_output: int) -> Operator:
    where = f"{graph.label}: node {node.name!r}"
    opsets = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in graph.proto.opset_import}
    opset = opsets.get(node.domain, 1)
    found = find_operator(node.domain, node.op, opset)
    if found is None:
        name = f"{node.domain}.{node.op}" if node.domain else node.op
        raise TrainingError(
            f"{where} must be an operator that can be trained, got {name!r} of opset {opset}",
            hint=did_you_mean(node.op, {op for _, op, _ in known_operators()}),
        )
    if found.n_outputs is not None and last_output >= found.n_outputs:
        raise TrainingError(
            f"{where} ({node.op}) must have only its first {found.n_outputs} outputs read, "
            f"got a reader of {node.outputs[last_output]!r}"
        )
    return found


def _slot(graph: ModelGraph, node: Node, position: int) -> Slot | None:
    name = node.inputs[position]
    if position in STATISTICS.get(node.op, ()) and name in graph.constants:
        return (node.index, position)
    return name or None


def _name(graph: ModelGraph, at: Operand) -> str:
    return graph.nodes[at[0]].input(at[1])


def _roles(graph: ModelGraph, steps: tuple[Step, ...]) -> dict[str, bool]:
    """Returns the constants that train, in node order, and whether they decay.

    Arithmetic on shapes alone is left out: its results are in `graph.values`.
    """
    roles: dict[str, bool] = {}
    learnable = _learnable(steps)
    for step in steps:
        if step.node.outputs[0] in graph.values:
            continue
        for position, slot in enumerate(step.slots):
            array = graph.constant(slot) if isinstance(slot, str) else None
            if array is None or not _is_floating(array):
                continue
            if position in WEIGHTS.get(step.node.op, ()):
                roles[str(slot)] = True
            elif position in OFFSETS.get(step.node.op, ()) and (
                step.node.op not in ARITHMETIC or (array.size > 1 and step.node.index in learnable)
            ):
                roles.setdefault(str(slot), False)
    return roles


def _learnable(steps: tuple[Step, ...]) -> set[int]:
    """Returns the sums and products, by node index, whose constants are biases and scales.

    An operator with weights comes after them, or right before them with nothing but further biases and scales between.
    Others decode what the last weights have said: the points of a detector's grids, the mean of pixels.
    """
    found: set[int] = set()
    ahead: set[str] = set()
    for step in reversed(steps):
        if step.node.op in WEIGHTS or ahead.intersection(step.node.outputs):
            ahead.update(step.node.inputs)
            found.add(step.node.index)
    scaled: set[str] = set()
    for step in steps:
        follows = step.node.op in ARITHMETIC and scaled.intersection(step.node.inputs)
        if follows:
            found.add(step.node.index)
        if follows or step.node.op in WEIGHTS:
            scaled.update(step.node.outputs)
    return found


def _is_floating(array: Array) -> bool:
    return array.dtype.kind not in "biuSUOc"


def _plain_constants(graph: ModelGraph, steps: tuple[Step, ...], trained: set[str]) -> dict[str, Tensor]:
    names = {slot for step in steps for slot in step.slots if isinstance(slot, str)} | set(graph.outputs)
    return {name: to_tensor(graph.constants[name]) for name in sorted(names - trained) if name in graph.constants}


def export(module: OnnxModule, graph: ModelGraph) -> ModelProto:
    """Returns a copy of the model with the module's weights and running statistics.

    What did not change keeps its bits; float32 weights are written exactly, half types are rounded.

    Args:
        module: Made from the graph.
        graph: The graph the module was made from.
    """
    operands: dict[Operand, Array] = {}
    arrays: dict[int, Array] = {}
    for at, tensor in module.operand_tensors():
        original = graph.constants[_name(graph, at)]
        array = arrays.setdefault(id(tensor), np.ascontiguousarray(tensor.detach().cpu().numpy()))
        if array.astype(original.dtype).tobytes() != original.tobytes():
            operands[at] = array.reshape(original.shape)
    return apply_edit(graph, Edit(operands=operands))


def check_agreement(
    module: OnnxModule, graph: ModelGraph, reference: Reference, *, batch: int = 2, tolerance: float = 1e-4
) -> float:
    """Returns the largest relative difference between the module and another implementation, in inference.

    Args:
        module: Made from the graph; its mode is restored.
        graph: Gives the inputs, standard normal.
        reference: Computes the outputs of the file for a feed.
        batch: Used where the file leaves the batch open.
        tolerance: Largest allowed difference, as a share of the largest output; at least 0.01 for outputs of a
            half type, which torch computes in float32.

    Raises:
        TrainingError: The difference is larger, or not a number.
    """
    feeds = random_feeds(graph, batch=batch)
    expected = reference(feeds)
    found = compute(module, [feeds[name] for name in graph.inputs])
    worst = 0.0
    for name, a, b in zip(graph.outputs, found, expected, strict=True):
        if a.shape != b.shape:
            raise TrainingError(f"{graph.label}: output {name!r} must have shape {b.shape}, got {a.shape} in torch")
        difference = relative_difference(a, b)
        allowed = max(tolerance, HALF_TOLERANCE) if b.dtype.itemsize == 2 else tolerance
        if not difference <= allowed:
            raise TrainingError(
                f"{graph.label}: output {name!r} must agree with the file's within {allowed:g}, "
                f"got a relative difference of {difference:.3g} in torch",
                hint="This is a gap in bocr-onnx's operators: please report it with the model.",
            )
        worst = max(worst, difference)
    return worst


def compute(module: OnnxModule, inputs: list[Array]) -> list[Array]:
    """Returns the outputs in inference mode for numpy inputs."""
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            return [t.cpu().numpy() for t in module(*(to_tensor(a) for a in inputs))]
    finally:
        module.train(training)


def relative_difference(a: Array, b: Array) -> float:
    """Returns max |a - b| / max(max |b|, SMALLEST_SCALE) in float64, for equal shapes; NaN where one is met."""
    if not a.size:
        return 0.0
    wide, reference = a.astype(np.float64), b.astype(np.float64)
    scale = max(float(np.max(np.abs(reference))), SMALLEST_SCALE)
    return float(np.max(np.abs(wide - reference))) / scale
