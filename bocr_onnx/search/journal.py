"""The journal: one JSON object per line, written before a trial starts and after it ends.

A run that is killed at any moment loses at most the trial under way: a line that was not finished is ignored.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bocr_onnx.errors import OutputError, ResumeError
from bocr_onnx.search.trial import Trial, TrialState


class Journal:
    """An append-only file of trials.

    Args:
        path: The .jsonl file; made with its header where it does not exist.
        header: What identifies the run; a journal with another header is refused.

    Raises:
        ResumeError: The file belongs to another run or is not a journal.
        OutputError: The file cannot be written.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path = path
        header = json.loads(json.dumps(header))
        lines = _read(path)
        if lines and lines[0].get("header") != header:
            raise ResumeError(_difference(path, lines[0].get("header"), header))
        self._trials = [_trial(path, line) for line in lines[1:]]
        try:
            if not lines:
                path.write_text("", encoding="utf-8")
                self._append({"header": header})
        except OSError as error:
            raise OutputError(f"journal {path} must be writable, got {error.strerror}") from error

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Returns the trials that ended, by number."""
        ended = {t.number: t for t in self._trials if t.state is not TrialState.PROPOSED}
        return tuple(ended[n] for n in sorted(ended))

    def write(self, trial: Trial) -> None:
        """Appends a trial, on disk when this returns."""
        self._trials.append(trial)
        self._append(asdict(trial) | {"state": trial.state.value})

    def _append(self, record: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ResumeError(f"journal {path} must be readable, got: {error}") from error
    lines = []
    kept = 0
    for line in text.splitlines(keepends=True):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            break
        if not line.endswith("\n") or not isinstance(record, dict):
            break
        lines.append(record)
        kept += len(line.encode())
    if text.strip() and not lines:
        raise ResumeError(f"journal {path} must hold one JSON object per line, got something else")
    if kept < len(text.encode()):
        os.truncate(path, kept)
    return lines


def _trial(path: Path, record: dict[str, Any]) -> Trial:
    try:
        return Trial(**(record | {"widths": tuple(record["widths"]), "state": TrialState(record["state"])}))
    except (KeyError, TypeError, ValueError) as error:
        raise ResumeError(f"journal {path}: a trial must have the fields of this version, got: {error}") from error


def _difference(path: Path, found: Any, expected: dict[str, Any]) -> str:
    if not isinstance(found, dict):
        return f"journal {path} must start with a header, got none"
    key = next((k for k in expected if found.get(k) != expected[k]), "header")
    return f"journal {path} must belong to this run: {key} is {found.get(key)!r} there and {expected.get(key)!r} here"
