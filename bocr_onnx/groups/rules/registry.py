"""Which rule carries labels through which operator."""

from __future__ import annotations

from collections.abc import Callable

from bocr_onnx.graph import Node
from bocr_onnx.groups.labels import Labeller
from bocr_onnx.groups.records import Entry, RuleError

Rule = Callable[[Node, Labeller], None]
Arithmetic = Callable[[Node, Labeller], tuple[Entry, ...]]
ANY_OPSET = (1, 1_000)

_RULES: dict[tuple[str, str], list[tuple[int, int, Rule]]] = {}
_ARITHMETIC: dict[str, Arithmetic] = {}


def rule(*ops: str, domain: str = "", opset: tuple[int, int] = ANY_OPSET) -> Callable[[Rule], Rule]:
    """Registers a rule for operators.

    Args:
        ops: Operator types.
        domain: Operator set.
        opset: First and last version the rule is right for.
    """

    def register(function: Rule) -> Rule:
        for op in ops:
            _RULES.setdefault((domain, op), []).append((*opset, function))
        return function

    return register


def refuse(reason: str, *ops: str, domain: str = "") -> None:
    """Registers operators whose inputs keep all channels, with the reason."""

    def refused(node: Node, at: Labeller) -> None:
        raise RuleError(reason)

    rule(*ops, domain=domain)(refused)


def arithmetic(*ops: str) -> Callable[[Arithmetic], Arithmetic]:
    """Registers how standard operators compute with small integer tensors that count channels."""

    def register(function: Arithmetic) -> Arithmetic:
        _ARITHMETIC.update(dict.fromkeys(ops, function))
        return function

    return register


def find_rule(domain: str, op: str, opset: int) -> Rule | None:
    """Returns the rule of an operator, or None where there is none."""
    for first, last, function in _RULES.get((domain, op), ()):
        if first <= opset <= last:
            return function
    return None


def find_arithmetic(domain: str, op: str) -> Arithmetic | None:
    """Returns how an operator computes with counts, or None where it is not followed."""
    return None if domain else _ARITHMETIC.get(op)


def known_operators() -> frozenset[tuple[str, str]]:
    """Returns every (domain, operator) that has a rule or a refusal of its own."""
    return frozenset(_RULES)
