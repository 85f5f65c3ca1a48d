"""The record of an ONNX graph that every other room reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx
from onnx import TensorProto

from bocr_onnx.graph.batch import samples_per_run

Array = npt.NDArray[Any]
Operand = tuple[int, int]
"""Where a constant is used: (node index, input position)."""

FLOATING = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16})
"""Element types of floating-point numbers."""

ROUNDING = frozenset({"QuantizeLinear", "DequantizeLinear"})
"""Operators that only change the number format: what they make of a constant is stored in front of them."""

MOVING = frozenset({"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Transpose", "Dropout"})
"""Operators that move numbers and compute none."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operator application.

    Attributes:
        index: Position in `ModelGraph.nodes`, which is a topological order.
        name: Unique in the graph; made from operator and index where the file has none or repeats one.
        op: Operator type, e.g. ``"Conv"``.
        domain: ``""`` for the standard operators.
        inputs: Tensor names; ``""`` marks an omitted optional input.
        outputs: Tensor names.
        attributes: Attribute values as Python or numpy objects; subgraphs are left out.
        captures: Outer tensors that the node's subgraphs read.
    """

    index: int
    name: str
    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    captures: tuple[str, ...] = ()

    def input(self, position: int) -> str:
        """Returns the name of an input, ``""`` where it is omitted."""
        return self.inputs[position] if position < len(self.inputs) else ""


@dataclass(frozen=True, slots=True)
class ModelGraph:
    """An ONNX graph, read once and never changed.

    Shapes are concrete: a symbolic batch counts as 1 where no other size is asked for.

    Attributes:
        proto: The model as read. Treated as read-only; `bocr_onnx.graph.apply_edit` makes changed copies.
        path: The file it came from, or None.
        sha256: Digest of the file and of its external data, or of the serialized model if there is no file.
        opset: Version of the standard operator set.
        nodes: In topological order.
        inputs: Names of the inputs a caller must feed.
        outputs: Names of the outputs.
        shapes: Concrete shape of every tensor where it is known.
        dtypes: ONNX element type of every tensor where it is known.
        constants: Value of every tensor that no input can change: stored weights, what follows from them, and
            shape arithmetic that comes out alike for every size of the inputs.
        values: Value of every other small tensor that follows from the concrete shapes.
        readers: Tensor name -> operands that read it, in node order.
        producer: Tensor name -> index of the node that makes it.
        symbolic: Input name -> axes that the file leaves open.
        external: Files that its weights came from, where they lay outside the model.
        written: The model before quantized constants were copied apart and channel shuffles became one Gather; None
            where `proto` is what was read.
        other_shapes: As `shapes`, where the open axes of the inputs have other sizes.
        strict: Whether the model passes the full check of onnx.checker as read.
        fills: Input name -> what it holds instead of random numbers when the model is tried (`bocr_onnx.graph.fills`).
    """

    proto: onnx.ModelProto
    path: Path | None
    sha256: str
    opset: int
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, int]
    constants: Mapping[str, Array]
    values: Mapping[str, Array]
    readers: Mapping[str, tuple[Operand, ...]]
    producer: Mapping[str, int]
    symbolic: Mapping[str, tuple[int, ...]]
    external: tuple[Path, ...] = ()
    strict: bool = True
    written: onnx.ModelProto | None = None
    other_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    fills: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Returns how errors name this model."""
        return str(self.path) if self.path else "the model"

    def constant(self, name: str) -> Array | None:
        """Returns the value of a constant tensor, or None where it is not one."""
        return self.constants.get(name) if name else None

    def operand(self, at: Operand) -> Array | None:
        """Returns the constant an operand holds, or None."""
        return self.constant(self.nodes[at[0]].input(at[1]))

    def rounded(self, name: str) -> Node | None:
        """Returns the QuantizeLinear or DequantizeLinear that makes a tensor, or None where none does."""
        index = self.producer.get(name)
        node = None if index is None else self.nodes[index]
        return node if node is not None and node.op in ROUNDING and not node.domain else None

    def maker(self, name: str) -> Node | None:
        """Returns the node that computes a tensor, before what only moves it; None for what is given."""
        while name in self.producer:
            node = self.nodes[self.producer[name]]
            if node.op not in MOVING:
                return node
            name = node.inputs[0]
        return None

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the concrete shapes of the inputs, as `from_proto` takes them."""
        return {name: self.shapes[name] for name in self.inputs if name in self.shapes}

    @property
    def batch(self) -> int:
        """Returns the number of samples in one run at the concrete shapes; see `samples_per_run`."""
        return samples_per_run(self)

    def batch_is_symbolic(self) -> bool:
        """Returns whether every input leaves its first axis open."""
        return all(0 in self.symbolic.get(name, ()) for name in self.inputs)
