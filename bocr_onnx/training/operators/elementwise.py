"""Operators that work on every element by itself, under numpy's broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional

from bocr_onnx.graph import Node
from bocr_onnx.training.operators.registry import (
    Context,
    Function,
    Inputs,
    given,
    need,
    operator,
    together,
    torch_dtype,
)

UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Ceil": torch.ceil,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardSwish": functional.hardswish,
    "Log": torch.log,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Softplus": functional.softplus,
    "Softsign": functional.softsign,
    "Sqrt": torch.sqrt,
    "Tanh": torch.tanh,
}
FOLDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Min": torch.minimum,
    "Max": torch.maximum,
    "Sum": torch.add,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "And": torch.logical_and,
    "Or": torch.logical_or,
}


def _unary(function: Callable[[Tensor], Tensor]) -> Function:
    return lambda node, inputs, ctx: function(need(inputs, 0))


def _fold(function: Callable[[Tensor, Tensor], Tensor]) -> Function:
    return lambda node, inputs, ctx: reduce(function, together(inputs))


for _op, _unary_function in UNARY.items():
    operator(_op)(_unary(_unary_function))
for _op, _fold_function in FOLDS.items():
    operator(_op, since=8 if _op in ("Min", "Max", "Sum") else 7)(_fold(_fold_function))


@operator("Mean", since=8)
def mean(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the mean over the inputs."""
    total: Tensor = reduce(torch.add, together(inputs))
    return total / len(inputs)


@operator("Div", since=7)
def div(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the quotient; integers are rounded towards zero."""
    a, b = together(inputs)
    return torch.div(a, b) if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


@operator("Pow", since=7)
def power(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the power in the type of the base."""
    base, exponent = together(inputs)
    return torch.pow(base, exponent).to(base.dtype)


@operator("Where")
def where(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the second input where the first is true, the third elsewhere."""
    condition, a, b = together(inputs)
    return torch.where(condition, a, b)


@operator("PRelu", since=7)
def prelu(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns `x` where positive, `slope * x` elsewhere."""
    x, slope = together(inputs)
    return torch.where(x < 0, slope * x, x)


@operator("LeakyRelu")
def leaky_relu(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns `x` where positive, `alpha * x` elsewhere."""
    return functional.leaky_relu(need(inputs, 0), node.attributes.get("alpha", 0.01))


@operator("HardSigmoid")
def hard_sigmoid(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns `alpha * x + beta` clipped to 0..1."""
    slope, shift = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    return _between(slope * need(inputs, 0) + shift, 0.0, 1.0)


@operator("Clip", since=6)
def clip(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns `x` between the bounds: attributes before opset 11, optional inputs since."""
    low, high = (
        node.attributes.get(name) if (bound := given(inputs, position)) is None else bound.item()
        for position, name in ((1, "min"), (2, "max"))
    )
    x = need(inputs, 0)
    if low is None and high is None:
        return x
    low, high = -torch.inf if low is None else low, torch.inf if high is None else high
    return _between(x, low, high) if x.is_floating_point() and low <= high else torch.clamp(x, low, high)


def _between(x: Tensor, low: float, high: float) -> Tensor:
    """Returns what clamp does; its gradient is one pass over memory where that of clamp is four."""
    return functional.hardtanh(x, low, high)


@operator("Elu")
def elu(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns `x` where positive, `alpha (e^x - 1)` elsewhere."""
    return functional.elu(need(inputs, 0), node.attributes.get("alpha", 1.0))


@operator("Selu", since=6)
def selu(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the exponential unit scaled by gamma."""
    gamma = node.attributes.get("gamma", 1.0507009873554805)
    y: Tensor = gamma * functional.elu(need(inputs, 0), node.attributes.get("alpha", 1.6732632423543772))
    return y


@operator("Gelu", since=20)
def gelu(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns `x Phi(x)`, by the error function or its tanh approximation."""
    return functional.gelu(need(inputs, 0), approximate=node.attributes.get("approximate", "none"))


@operator("Identity")
def identity(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the input."""
    return need(inputs, 0)


@operator("Dropout")
def dropout(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the input: the file is an inference graph, and finetuning keeps to what it computes."""
    return need(inputs, 0)


@operator("Cast", since=6)
def cast(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the input in another type; half types stay float32."""
    return need(inputs, 0).to(torch_dtype(node.attributes["to"]))


@operator("CastLike", since=15)
def cast_like(node: Node, inputs: Inputs, ctx: Context) -> Tensor:
    """Returns the first input in the type of the second."""
    return need(inputs, 0).to(need(inputs, 1).dtype)
