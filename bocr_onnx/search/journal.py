"""The journal: one JSON object per line, written before a trial starts and after it ends.

A run that is killed at any moment loses at most the trial under way: a line that was not finished is ignored.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from bocr_onnx.errors import OutputError, ResumeError
from bocr_onnx.search.space import SearchSpace
from bocr_onnx.search.trial import Trial, TrialState, is_sound

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")


class Journal:
    """An append-only file of trials.

    Args:
        path: The .jsonl file; made with its header where it does not exist.
        header: What identifies the run; a journal with another header is refused.

    Attributes:
        is_new: Whether the file was made now.

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
        self.is_new = not lines
        self._trials = [_trial(path, line) for line in lines[1:]]
        try:
            if not lines:
                path.write_text("", encoding="utf-8")
                self._append({"header": header})
        except OSError as error:
            raise OutputError(f"journal {path} must be writable, got {error.strerror}") from error

    def check(self, space: SearchSpace) -> None:
        """Checks that every trial is a policy of a space.

        Raises:
            ResumeError: A trial keeps a number of channels that its group may not keep.
        """
        for trial in self._trials:
            if not space.holds(trial.widths):
                raise ResumeError(f"journal {self.path}: trial {trial.number} must be a policy of this search")

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Returns the trials that ended, by number."""
        ended = {t.number: t for t in self._trials if t.state is not TrialState.PROPOSED}
        return tuple(ended[n] for n in sorted(ended))

    def write(self, trial: Trial) -> None:
        """Appends a trial, on disk when this returns.

        Raises:
            OutputError: The file cannot be written any more.
        """
        self._trials.append(trial)
        try:
            self._append(asdict(trial) | {"state": trial.state.value})
        except OSError as error:
            raise OutputError(f"journal {self.path} must be writable, got {error.strerror}") from error

    def _append(self, record: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _read(path: Path) -> list[dict[str, Any]]:
    """Returns the journal's lines; a last one that was torn off is cut away."""
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ResumeError(f"journal {path} must be readable, got: {error}") from error
    lines = text.splitlines(keepends=True)
    if len(lines) == 1 and not text.endswith("\n"):
        return []  # its header was torn off as it was written: no trial is lost
    whole = [record for line in lines if (record := _parse(line)) is not None]
    if len(whole) < len(lines) - 1 or (lines and not whole):
        raise ResumeError(f"journal {path} must hold one JSON object per line, got something else")
    if len(whole) < len(lines):
        if _parse(lines[-1]) is not None:
            raise ResumeError(f"journal {path} must hold one JSON object per line, got something else")
        os.truncate(path, len("".join(lines[:-1]).encode()))
    return whole


def _parse(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and line.endswith("\n") else None


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def read_record(kind: type[Record], record: object) -> Record:
    """Returns a record of a frozen dataclass from parsed JSON, every field checked against its type.

    Args:
        kind: The dataclass.
        record: A JSON object; lists become tuples.

    Raises:
        ValueError: It is not an object, a field is unknown or missing, or a value has another type.
    """
    if not isinstance(record, dict):
        raise ValueError("it is not an object")
    unknown = sorted(set(record) - {f.name for f in fields(kind)})
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r}")
    try:
        return TypeAdapter(kind).validate_json(json.dumps(record), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}") from error


def _trial(path: Path, record: dict[str, Any]) -> Trial:
    try:
        trial = read_record(Trial, record)
    except ValueError as error:
        raise ResumeError(f"journal {path}: a trial must have the fields of this version: {error}") from error
    if not is_sound(trial):
        raise ResumeError(f"journal {path}: trial {trial.number} must have the numbers of a {trial.state.value} trial")
    return trial


def _difference(path: Path, found: Any, expected: dict[str, Any]) -> str:
    if not isinstance(found, dict):
        return f"journal {path} must start with a header, got none"
    if found.get("schema") != expected.get("schema"):
        return f"journal {path} must be of this version of bocr-onnx, got one that another version has written"
    key = next((k for k in expected if found.get(k) != expected[k]), "header")
    return f"journal {path} must belong to this run: {key} is {found.get(key)!r} there and {expected.get(key)!r} here"
