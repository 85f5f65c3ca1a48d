"""Several budgets of one model side by side: what is kept, what is scored, how fast it is."""

from __future__ import annotations

import json
from typing import Any

from bocr_onnx.report.record import SCHEMA, Report

HEAD = ("target", "MACs", "parameters", "file size", "accuracy", "latency", "file")


def front_record(reports: tuple[Report, ...]) -> dict[str, Any]:
    """Returns the content of front.json: the original and one point for each budget."""
    first = reports[0].as_json()
    points = [
        {"target": r.target, "output": r.output, **r.as_json()["result"], "missed": list(r.missed)} for r in reports
    ]
    return {
        "schema": SCHEMA,
        "tool": first["tool"],
        "model": first["model"],
        "metric": first["metric"],
        "baseline": first["baseline"],
        "front": points,
    }


def front_text(reports: tuple[Report, ...]) -> str:
    """Returns front.json as text."""
    return json.dumps(front_record(reports), indent=2) + "\n"


def front_rows(reports: tuple[Report, ...]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Returns head and rows of the table: shares of the original, accuracy and latency."""
    rows: list[tuple[str, ...]] = [
        ("original", "1.000", "1.000", "1.000", *_measured(reports[0], original=True), reports[0].model["path"])
    ]
    for report in reports:
        before, after = report.baseline, report.result
        kept = [
            f"{a / max(b, 1):.3f}"
            for a, b in (
                (after.macs, before.macs),
                (after.params, before.params),
                (after.size_bytes, before.size_bytes),
            )
        ]
        target = ", ".join(f"{name} {share:g}" for name, share in report.target.items())
        rows.append((target, *kept, *_measured(report, original=False), report.output))
    return HEAD, rows


def _measured(report: Report, *, original: bool) -> tuple[str, str]:
    figures = report.baseline if original else report.result
    accuracy = "" if figures.accuracy is None else f"{figures.accuracy:.2%}"
    return accuracy, "" if figures.latency_ms is None else f"{figures.latency_ms:.3f} ms"
