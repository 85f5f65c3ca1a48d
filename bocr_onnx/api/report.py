"""The page of a run."""

from __future__ import annotations

import json
import math
import shlex
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bocr_onnx.devices import Latency, Request, open_device
from bocr_onnx.errors import BocrError, DataError
from bocr_onnx.graph import ModelGraph, check_writable, load, random_feeds, read_text, write_text
from bocr_onnx.options import PruneOptions, ReportOptions, keywords, options_of
from bocr_onnx.report.page import Extras, page

MAX_BYTES = 1 << 28
MAX_PICTURE = 1 << 18
KERNEL_SECONDS = 0.5
MOST_OPERATORS = 12


@keywords(ReportOptions)
def write_report(options: ReportOptions) -> Path:
    """Writes report.html of a run: one file without scripts, for a browser without a network, and returns where.

    The budgets of one run are shown beside each other. Charts are drawn where vl-convert-python is
    installed (``pip install 'bocr-onnx[report]'``), else there are tables. Both models run for a moment, to tell the
    time of each operator, where they are still there, unchanged, and were measured on this host.

    Args: from the record.

    Raises:
        DataError: The folder holds no finished run.
        OutputError: The page cannot be written.
    """
    folder = Path(options.run_dir)
    parts = _budgets(folder)
    runs = {part.name: _record(part) for part in parts}
    if options.compare is not None:
        other = Path(options.compare)
        name = other.name if other.name != folder.name else str(other)
        runs[name] = _record(other)
    path = check_writable(folder / "report.html" if options.output is None else options.output)
    try:
        kernels = _kernels(runs[parts[0].name], folder.parent)
        extras = Extras(_trials(parts[0]), kernels, _examples(parts[0]), _command(folder))
        made = page(runs, extras)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(f"{folder / 'report.json'} must be one that bocr-onnx has written, got: {error!r}") from error
    write_text(path, made)
    return path


def _budgets(folder: Path) -> list[Path]:
    """Returns the folders of all budgets of a run, itself where it has one."""
    if (folder / "report.json").exists() or not (folder / "front.json").exists():
        return [folder]
    return sorted(path.parent for path in folder.glob("*/report.json")) or [folder]


def _kernels(record: Mapping[str, Any], beside: Path) -> dict[str, dict[str, float]]:
    """Returns the ms that original and slim model spend in each kind of operator; nothing where the files are gone.

    Args:
        record: The report.
        beside: A second folder to look for the files in: their paths are relative to where the run began.
    """
    files = {"original": (record["model"]["path"], record["model"]["sha256"]),
             "slim": (record["output"], record.get("output_sha256"))}  # fmt: skip
    device, threads = record["latency"].get("device", {}).get("device"), record["latency"].get("threads", 1)
    if device != "host":
        return {}
    try:
        graphs = [_unchanged(Path(str(path)), digest, beside) for path, digest in files.values()]
        models = [graph.proto.SerializeToString() for graph in graphs]
        request = Request(threads=int(threads), budget_s=KERNEL_SECONDS, details=True)
        measured = open_device("host").measure(models, random_feeds(graphs[0]), request)
    except (BocrError, OSError):
        return {}
    return dict(zip(files, map(_by_operator, measured.latencies), strict=True))


def _unchanged(path: Path, digest: str | None, beside: Path) -> ModelGraph:
    """Returns the model of a path, or of its name in a folder, that has the digest.

    Raises:
        DataError: There is none.
    """
    for place in (path, beside / path.name):
        if place.is_file() and (graph := load(place)).sha256 == digest:
            return graph
    raise DataError(f"{path} must be the file that the run has written, got another one, or none")


def _by_operator(latency: Latency) -> dict[str, float]:
    times: dict[str, float] = defaultdict(float)
    for kernel in latency.kernels:
        times[kernel.op] += kernel.ms
    return dict(sorted(times.items(), key=lambda item: -item[1])[:MOST_OPERATORS])


def _examples(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("example?.jpg")) if path.stat().st_size < MAX_PICTURE]


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
