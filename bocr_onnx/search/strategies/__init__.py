"""Search strategies by name. A strategy is a pure function from what was tried to what is tried next."""

from __future__ import annotations

from bocr_onnx.errors import UsageError, did_you_mean
from bocr_onnx.search.strategies import amc, bocr, controls, local, paper
from bocr_onnx.search.strategies.records import Propose, Strategy

STRATEGIES: dict[str, Strategy] = {
    "amc": amc.amc,
    "bo": bocr.bo,
    "bocr": bocr.bocr,
    "bocr-paper": paper.bocr_paper,
    "local": local.local,
    "random": controls.random,
    "sensitivity": controls.sensitivity,
    "uniform": controls.uniform,
}

ONE_POLICY = frozenset({"uniform", "sensitivity"})
"""Strategies that name one policy and need no score for it."""

MIN_TRIALS = {"amc": 3, "bo": 2, "bocr": 2, "bocr-paper": 8, "local": 2}
"""Trials below which a strategy is not itself; one where none is named."""


def find_strategy(name: str) -> Strategy:
    """Returns a strategy by name.

    Raises:
        UsageError: There is none of that name.
    """
    if name not in STRATEGIES:
        raise UsageError(f"`search` must be a known strategy, got {name!r}", hint=did_you_mean(name, STRATEGIES))
    return STRATEGIES[name]


__all__ = ["MIN_TRIALS", "ONE_POLICY", "STRATEGIES", "Propose", "Strategy", "find_strategy"]
