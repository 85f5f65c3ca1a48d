"""A training on disk: written whole or not at all, read without running code from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bocr_onnx.errors import OutputError, ResumeError
from bocr_onnx.graph import replacing

SCHEMA = 1


def write_checkpoint(path: Path, identity: str, state: dict[str, Any]) -> None:
    """Writes the state of a training.

    Args:
        path: The file; replaced in one step.
        identity: Digest of all that must be the same for going on.
        state: Tensors, numbers, text, lists and dicts.

    Raises:
        OutputError: It cannot be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as made:
            torch.save({"schema": SCHEMA, "identity": identity, **state}, made)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no room on the disk, or no permission"
        raise OutputError(f"checkpoint {path} must be writable, got: {reason}") from error


def read_checkpoint(path: Path, identity: str) -> dict[str, Any] | None:
    """Returns the state of a training, or None where there is none yet.

    Raises:
        ResumeError: The file is damaged, or belongs to another training.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        schema, found = state.pop("schema"), state.pop("identity")
    except Exception as error:  # whatever torch raises for a damaged file
        raise ResumeError(
            f"checkpoint {path} must be a readable one, got: {type(error).__name__}",
            hint="Delete it to train from the start.",
        ) from error
    if schema != SCHEMA or found != identity:
        raise ResumeError(
            f"checkpoint {path} must belong to this model, teacher, data and settings, got another",
            hint="Delete it to train from the start, or name another folder.",
        )
    return state
