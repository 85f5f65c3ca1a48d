"""Search strategies by name. A strategy is a pure function from what was tried to what is tried next."""

from __future__ import annotations

from bocr_onnx.search.strategies.amc import amc
from bocr_onnx.search.strategies.bocr import bo, bocr
from bocr_onnx.search.strategies.bocr_paper import bocr_paper
from bocr_onnx.search.strategies.controls import random, sensitivity, uniform
from bocr_onnx.search.strategies.local import local
from bocr_onnx.search.strategies.records import Propose, Registered, Strategy

STRATEGIES: dict[str, Registered] = {
    "amc": Registered(amc, min_trials=3),
    "bo": Registered(bo, min_trials=2, stops=True),
    "bocr": Registered(bocr, min_trials=2, stops=True),
    "bocr-paper": Registered(bocr_paper, min_trials=8),
    "local": Registered(local, min_trials=2, stops=True),
    "random": Registered(random),
    "sensitivity": Registered(sensitivity, scored=False),
    "uniform": Registered(uniform, scored=False),
}
"""Every strategy by its name, one of `bocr_onnx.options.strategies.SearchName`."""

__all__ = ["STRATEGIES", "Propose", "Registered", "Strategy"]
