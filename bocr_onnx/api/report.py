"""The page of a run."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bocr_onnx.errors import DataError
from bocr_onnx.graph import check_writable, read_text, write_text
from bocr_onnx.options import PruneOptions, ReportOptions, keywords, options_of
from bocr_onnx.report.page import page

MAX_BYTES = 1 << 28


@keywords(ReportOptions)
def write_report(options: ReportOptions) -> Path:
    """Writes report.html of a run: one file without scripts, for a browser without a network, and returns where.

    Charts are drawn where vl-convert-python is installed (``pip install 'bocr-onnx[report]'``), else there are tables.

    Args: from the record.

    Raises:
        DataError: The folder holds no finished run.
        OutputError: The page cannot be written.
    """
    folder = Path(options.run_dir)
    runs = {folder.name: _record(folder)}
    if options.compare is not None:
        other = Path(options.compare)
        name = other.name if other.name != folder.name else str(other)
        runs[name] = _record(other)
    path = check_writable(folder / "report.html" if options.output is None else options.output)
    try:
        made = page(runs, _trials(folder), _command(folder))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(f"{folder / 'report.json'} must be one that bocr-onnx has written, got: {error!r}") from error
    write_text(path, made)
    return path


def _record(folder: Path) -> Mapping[str, Any]:
    path = folder / "report.json"
    try:
        found = json.loads(read_text(path, MAX_BYTES))
    except (OSError, ValueError) as error:
        hint = "Name the folder of a run that has come to its end, <output>.run"
        raise DataError(f"{path} must be a readable report, got: {error}", hint=hint) from error
    if not isinstance(found, dict):
        raise DataError(f"{path} must hold a report, got {type(found).__name__}")
    return found


def _trials(folder: Path) -> list[dict[str, Any]]:
    """Returns the trials that were scored on all images, in order; none without a search."""
    path = folder / "journal.jsonl"
    if not path.exists():
        return []
    found: dict[int, dict[str, Any]] = {}
    for line in read_text(path, MAX_BYTES).splitlines():
        try:
            row = json.loads(line)
            number, objective, score = int(row["number"]), float(row["objective"]), float(row["score"])
        except (KeyError, TypeError, ValueError):
            continue  # the header, a proposal, a trial without a score, or the torn end of a killed run
        distortion = math.exp(-objective) if -700 < objective < 700 else math.inf
        if math.isfinite(distortion) and math.isfinite(score):
            found[number] = {
                "number": number,
                "distortion": distortion,
                "score": score,
                "origin": str(row.get("origin")),
            }
    return [found[number] for number in sorted(found)]


def _command(folder: Path) -> str:
    """Returns the command line that makes the run again: what differs from the defaults."""
    try:
        given = json.loads(read_text(folder / "run.json", MAX_BYTES))
    except (OSError, ValueError):
        return ""
    words = ["bocr-onnx", "prune", str(given.get("model"))]
    for option in options_of(PruneOptions):
        value = given.get(option.name)
        if option.flag.argument or value is None or value == option.default or value in ([], {}, False):
            continue
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        words += [option.spelling] if value is True else [option.spelling, text]
    return shlex.join(words)
