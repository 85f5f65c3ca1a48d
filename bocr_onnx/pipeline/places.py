"""Where files lie that are made beside a slim one."""

from __future__ import annotations

from pathlib import Path


def int8_of(output: Path) -> Path:
    """Returns the file of a model in int8, beside the one in floating point."""
    return output.with_name(f"{output.stem}_int8.onnx")


def mobile_of(output: Path) -> Path:
    """Returns the folder of the files for phones, beside the slim file."""
    return output.with_name(f"{output.stem}.mobile")
