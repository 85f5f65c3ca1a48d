"""Several budgets of one model side by side: what is kept, what is scored, how fast it is."""

from __future__ import annotations

import json
from typing import Any

from bocr_onnx.cost import QUANTITIES
from bocr_onnx.report.record import SCHEMA, Report
from bocr_onnx.report.speed import clock_text, speed_text

HEAD = ("target", *(q.label for q in QUANTITIES.values()), "accuracy", "latency", "speed", "clock", "file")


def front_record(reports: tuple[Report, ...]) -> dict[str, Any]:
    """Returns the content of front.json: the original and one point for each budget.

    Latency is measured once for each point, interleaved with the original, so a point holds its clock and the
    original's latency beside it; latencies of two points compare by their ratio to that.
    """
    first = reports[0].as_json()
    return {
        "schema": SCHEMA,
        "tool": first["tool"],
        "model": first["model"],
        "metric": first["metric"],
        "baseline": first["baseline"],
        "front": [{**_point(report), "dominated": is_dominated(report, reports)} for report in reports],
    }


def is_dominated(report: Report, reports: tuple[Report, ...]) -> bool:
    """Returns whether another point is as good in score, latency, MACs and size, and better in one of them."""
    own = _figures(report)
    others = [_figures(other) for other in reports if other is not report]
    return any(all(a <= b for a, b in zip(o, own, strict=True)) and o != own for o in others)


def _figures(report: Report) -> tuple[float, ...]:
    """Returns what is the better the smaller it is; what was not measured counts as equal."""
    before, after = report.baseline.latency_ms, report.result.latency_ms
    latency = after / before if before and after else 0.0
    kept = report.result.quantities
    return -(report.result.accuracy or 0.0), latency, kept["macs"], kept["size_bytes"]


def front_text(reports: tuple[Report, ...]) -> str:
    """Returns front.json as text."""
    return json.dumps(front_record(reports), indent=2) + "\n"


def front_rows(reports: tuple[Report, ...]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Returns head and rows of the table: shares of the original, accuracy, latency, speed and clock."""
    rows: list[tuple[str, ...]] = [
        ("original", *("1.000" for _ in QUANTITIES), *_measured(reports[0], original=True), reports[0].model["path"])
    ]
    for report in reports:
        before, after = report.baseline, report.result
        kept = [f"{after.quantities[q.field] / max(before.quantities[q.field], 1):.3f}" for q in QUANTITIES.values()]
        target = ", ".join(f"{name} {share:g}" for name, share in report.target.items())
        rows.append((target, *kept, *_measured(report, original=False), report.output))
    return HEAD, rows


def _point(report: Report) -> dict[str, Any]:
    return {
        "target": report.target,
        "output": report.output,
        **report.as_json()["result"],
        "baseline_latency_ms": report.baseline.latency_ms,
        "clock": report.latency.get("clock"),
        "missed": list(report.missed),
    }


def _measured(report: Report, *, original: bool) -> tuple[str, str, str, str]:
    figures = report.baseline if original else report.result
    accuracy = "" if figures.accuracy is None else f"{figures.accuracy:.2%}"
    before, after = report.baseline.latency_ms, figures.latency_ms
    if not before or not after:
        return accuracy, "", "", ""
    speed = "" if original else speed_text(before, after)
    return accuracy, f"{after:.3f} ms", speed, clock_text(report.latency)
