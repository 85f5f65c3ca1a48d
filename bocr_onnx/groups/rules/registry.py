"""Which rule carries labels through which operator."""

from __future__ import annotations

from collections.abc import Callable

from bocr_onnx.graph import Node
from bocr_onnx.groups.labels import Labeller

Rule = Callable[[Node, Labeller], None]
ANY_OPSET = (1, 1_000)

_RULES: dict[tuple[str, str], list[tuple[int, int, Rule]]] = {}


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


def find_rule(domain: str, op: str, opset: int) -> Rule | None:
    """Returns the rule of an operator, or None where there is none."""
    for first, last, function in _RULES.get((domain, op), ()):
        if first <= opset <= last:
            return function
    return None


def known_operators() -> frozenset[tuple[str, str]]:
    """Returns every (domain, operator) that has a rule."""
    return frozenset(_RULES)
