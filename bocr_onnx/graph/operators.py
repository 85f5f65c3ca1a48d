"""Facts about operators that several rooms need, one row for each operator."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bocr_onnx.graph.model import Node

_WEIGHTS: dict[str, tuple[int, ...]] = {
    "Attention": (),
    "Conv": (1,),
    "ConvInteger": (1,),
    "ConvTranspose": (1,),
    "DeformConv": (1,),
    "Einsum": (0, 1, 2, 3, 4, 5, 6, 7),
    "GRU": (1, 2),
    "Gemm": (0, 1),
    "LSTM": (1, 2),
    "MatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "QLinearConv": (3,),
    "QLinearMatMul": (0, 3),
    "RNN": (1, 2),
    "com.microsoft.FusedConv": (1,),
    "com.microsoft.FusedGemm": (0, 1),
    "com.microsoft.FusedMatMul": (0, 1),
    "com.microsoft.QGemm": (0, 3),
    "com.microsoft.nchwc.Conv": (1,),
}
"""Operators that cost multiply-accumulates -> positions of the operands that are weights where they are constant."""

_OPERANDS: dict[str, Sequence[int]] = {
    "ConvInteger": (0, 1),
    "MatMulInteger": (0, 1),
    "QGemm": (0, 3, 6),
    "QLinearAdd": (0, 3),
    "QLinearAveragePool": (0,),
    "QLinearConcat": range(2, 1 << 30, 3),
    "QLinearConv": (0, 3, 8),
    "QLinearGlobalAveragePool": (0,),
    "QLinearLeakyRelu": (0,),
    "QLinearMatMul": (0, 3),
    "QLinearMul": (0, 3),
    "QLinearSigmoid": (0,),
}
"""Operators on quantized integers -> positions of what they compute on; the rest are scales and zero points."""

INTEGER = frozenset(_OPERANDS)
"""Operators that compute on quantized integers, exactly."""

ZERO_POINT = 2
"""How many places after an operand of theirs its zero point stands."""

_UNSCALED = frozenset({"ConvInteger", "MatMulInteger"})

RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
"""Operators with a hidden state."""


def is_weighted(node: Node) -> bool:
    """Returns whether an operator costs multiply-accumulates.

    Example:
        >>> from bocr_onnx.graph import Node
        >>> is_weighted(Node(0, "c", "Conv", "", ("x", "W"), ("y",), {}))
        True
    """
    return full_name(node) in _WEIGHTS


def weight_positions(node: Node) -> tuple[int, ...]:
    """Returns the positions of operands that are weights where they are constant; none of other operators.

    Example:
        >>> from bocr_onnx.graph import Node
        >>> weight_positions(Node(0, "r", "LSTM", "", ("x", "W", "R"), ("y",), {}))
        (1, 2)
    """
    if not is_weighted(node):
        return ()
    return tuple(p for p in _WEIGHTS[full_name(node)] if node.input(p))


def operand_positions(node: Node) -> tuple[int, ...]:
    """Returns the positions of the tensors that an operator computes on: all but scales and zero points.

    Example:
        >>> from bocr_onnx.graph import Node
        >>> operand_positions(Node(0, "c", "QLinearConv", "", ("x", "s", "z", "W", "t", "u", "v", "w"), ("y",), {}))
        (0, 3)
    """
    n_inputs = len(node.inputs)
    return tuple(
        p for p in takewhile(lambda p: p < n_inputs, _OPERANDS.get(node.op, range(n_inputs))) if node.inputs[p]
    )


def scale_positions(node: Node, position: int) -> tuple[int, ...]:
    """Returns the positions of an operand's scale and zero point, as far as the operator is given them.

    Example:
        >>> from bocr_onnx.graph import Node
        >>> scale_positions(Node(0, "c", "ConvInteger", "", ("x", "W", "", "u"), ("y",), {}), 1)
        (3,)
    """
    if node.op not in INTEGER:
        return ()
    first = position + (ZERO_POINT if node.op in _UNSCALED else 1)
    return tuple(p for p in range(first, position + ZERO_POINT + 1) if node.input(p))


def full_name(node: Node) -> str:
    """Returns the operator with its domain in front, where it has one of its own."""
    return f"{node.domain}.{node.op}" if node.domain else node.op
