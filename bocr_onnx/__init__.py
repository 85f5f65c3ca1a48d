"""bocr-onnx: physically slimmer ONNX files, found by search and proved equal to the masked original.

Example:
    >>> import bocr_onnx
    >>> from importlib.resources import files
    >>> found = bocr_onnx.inspect(str(files("bocr_onnx.calibration") / "demo.onnx"))
    >>> len(found.groups) > 3
    True
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
"""ONNX Runtime reports what it runs by default, from 1.29 on Linux; it reads this when it is imported."""

if TYPE_CHECKING:
    from bocr_onnx.api import apply, bench, check, evaluate, finetune, inspect, mobile, prune, prune_each, quantize
    from bocr_onnx.api import to_onnx as to_onnx
    from bocr_onnx.api import to_torch as to_torch
    from bocr_onnx.api import write_report as write_report
    from bocr_onnx.errors import BocrError

    __version__: str

__all__ = [
    "BocrError",
    "apply",
    "bench",
    "check",
    "evaluate",
    "finetune",
    "inspect",
    "mobile",
    "prune",
    "prune_each",
    "quantize",
    "to_onnx",
    "to_torch",
    "write_report",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Loads the public functions on first use, so that importing the package stays light."""
    if name == "BocrError":
        from bocr_onnx.errors import BocrError

        return BocrError
    if name == "__version__":
        from importlib.metadata import version

        return version("bocr-onnx")
    if name in __all__:
        from bocr_onnx import api

        return getattr(api, name)
    raise AttributeError(f"module 'bocr_onnx' has no attribute {name!r}")
