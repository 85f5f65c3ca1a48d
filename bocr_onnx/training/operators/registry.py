"""Which function computes which operator.

A function takes a node, its input tensors (None where an optional one is omitted) and the context of the run,
and returns the first output, or a tuple of outputs. Floating half types are computed in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import onnx
import torch
from torch import Tensor

from bocr_onnx.errors import TrainingError
from bocr_onnx.graph import Array, Node


@dataclass(frozen=True, slots=True)
class Context:
    """What an operator may ask about the run.

    Attributes:
        label: How errors name the model.
        opset: Version of the standard operator set.
        training: Whether BatchNormalization uses the statistics of the batch.
    """

    label: str
    opset: int
    training: bool = False

    def refuse(self, node: Node, condition: str, found: object) -> NoReturn:
        """Raises the error that names a node which cannot be computed as written.

        Raises:
            TrainingError: Always.
        """
        raise TrainingError(f"{self.label}: node {node.name!r} ({node.op}) must {condition}, got {found!r}")


Inputs = list[Tensor | None]
Result = Tensor | tuple[Tensor, ...]
Function = Callable[[Node, Inputs, Context], Result]
Key = tuple[str, str, int]
"""Domain, operator, first opset version the function is right for."""


@dataclass(frozen=True, slots=True)
class Operator:
    """A registered function.

    Attributes:
        key: Domain, operator, first version.
        function: What computes it.
        n_outputs: How many outputs the function returns at most; None where it returns all.
    """

    key: Key
    function: Function
    n_outputs: int | None = 1


_OPERATORS: dict[Key, Operator] = {}


def operator(*ops: str, since: int = 1, domain: str = "", n_outputs: int | None = 1) -> Callable[[Function], Function]:
    """Registers a function for operators.

    Args:
        ops: Operator types.
        since: First opset version the function is right for; it holds up to the next registered one.
        domain: Operator set.
        n_outputs: How many outputs the function returns at most; None where it returns all.
    """

    def register(function: Function) -> Function:
        for op in ops:
            _OPERATORS[domain, op, since] = Operator((domain, op, since), function, n_outputs)
        return function

    return register


def find_operator(domain: str, op: str, opset: int) -> Operator | None:
    """Returns the newest function that is not newer than the opset, or None where there is none."""
    versions = [s for d, o, s in _OPERATORS if (d, o) == (domain, op) and s <= opset]
    return _OPERATORS[domain, op, max(versions)] if versions else None


def known_operators() -> frozenset[Key]:
    """Returns the key of every registered function."""
    return frozenset(_OPERATORS)


def need(inputs: Inputs, position: int) -> Tensor:
    """Returns an input that the operator's schema demands."""
    tensor = inputs[position]
    if tensor is None:
        raise ValueError(f"input {position} is omitted, which onnx.checker does not let pass")
    return tensor


def given(inputs: Inputs, position: int) -> Tensor | None:
    """Returns an optional input, or None where it is omitted."""
    return inputs[position] if position < len(inputs) else None


def ints(node: Node, attribute: str, inputs: Inputs, position: int) -> list[int] | None:
    """Returns integers that old opsets hold in an attribute and new ones in an input, or None."""
    tensor = given(inputs, position)
    if tensor is not None:
        return [int(v) for v in tensor.reshape(-1).tolist()]
    found = node.attributes.get(attribute)
    return None if found is None else [int(v) for v in found]


def together(inputs: Inputs) -> list[Tensor]:
    """Returns the present inputs on one device: constants follow the computed ones."""
    present = [t for t in inputs if t is not None]
    device = next((t.device for t in present if t.device.type != "cpu"), None)
    return present if device is None else [t.to(device) for t in present]


def to_tensor(array: Array) -> Tensor:
    """Returns a copy of an array as a tensor; half types become float32."""
    return torch.from_numpy(np.array(array, dtype=computed_dtype(array.dtype), order="C"))


def computed_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Returns the element type that a stored one is computed in."""
    half = dtype.itemsize <= 2 and dtype.kind not in "biu"
    return np.dtype(np.float32) if half else dtype


def torch_dtype(element: int) -> torch.dtype:
    """Returns the torch type in which an ONNX element type is computed."""
    dtype = computed_dtype(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(element)))
    return torch.from_numpy(np.empty(0, dtype)).dtype
