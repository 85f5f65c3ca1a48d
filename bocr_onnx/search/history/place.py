"""Where the history lies unless a run says otherwise."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

VARIABLE = "BOCR_ONNX_HISTORY"
"""Environment variable that names another file."""


def default_history() -> Path:
    """Returns the file that `BOCR_ONNX_HISTORY` names, else the one in the user's data folder."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else Path(platformdirs.user_data_dir("bocr-onnx", appauthor=False)) / "history.sqlite"
