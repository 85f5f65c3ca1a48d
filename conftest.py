"""Collection: a module without an example is not imported to look for one."""

from __future__ import annotations

from pathlib import Path


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leaves out modules of the package that hold no doctest."""
    inside = collection_path.suffix == ".py" and "bocr_onnx" in collection_path.parts
    tests = "tests" in collection_path.parts
    return True if inside and not tests and ">>>" not in collection_path.read_text(encoding="utf-8") else None
