"""Where what belongs to devices is kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def kept_at(variable: str, name: str) -> Path:
    """Returns the path that an environment variable names, else one in the user's cache folder.

    Args:
        variable: Name of the variable.
        name: File or folder in the cache folder.

    Example:
        >>> kept_at("BOCR_ONNX_NOWHERE", "devices.json").name
        'devices.json'
    """
    named = os.environ.get(variable)
    return Path(named) if named else Path(platformdirs.user_cache_dir("bocr-onnx", appauthor=False)) / name
