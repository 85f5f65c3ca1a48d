"""Facts about operators that several rooms need, one row for each operator."""

from __future__ import annotations

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
}
"""Operators that cost multiply-accumulates -> positions of the operands that are weights where they are constant."""

INTEGER = frozenset({"ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"})
"""Operators that compute on quantized integers, exactly."""

RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
"""Operators with a hidden state."""


def is_weighted(node: Node) -> bool:
    """Returns whether an operator costs multiply-accumulates.

    Example:
        >>> is_weighted(Node(0, "c", "Conv", "", ("x", "W"), ("y",), {}))
        True
    """
    return not node.domain and node.op in _WEIGHTS


def weight_positions(node: Node) -> tuple[int, ...]:
    """Returns the positions of operands that are weights where they are constant; none of other operators.

    Example:
        >>> weight_positions(Node(0, "r", "LSTM", "", ("x", "W", "R"), ("y",), {}))
        (1, 2)
    """
    if not is_weighted(node):
        return ()
    return tuple(p for p in _WEIGHTS[node.op] if node.input(p))
