"""Results as they stand in a notebook: tables, as `_repr_html_` gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bocr_onnx.report.html import table
from bocr_onnx.report.page import figures, interval, verdict

MOST_ROWS = 60


def report_html(record: Mapping[str, Any]) -> str:
    """Returns the verdict and the figures of a run.

    Args:
        record: Content of report.json.
    """
    return verdict(record) + figures({"slim": record})


def inspection_html(record: Mapping[str, Any]) -> str:
    """Returns the groups of a model, the largest first, and what is left alone.

    Args:
        record: What ``bocr-onnx inspect --json`` prints.
    """
    groups = sorted(record["groups"], key=lambda group: -group["macs_share"])
    rows = [(group["name"], group["n_channels"], f"{group['macs_share']:.1%}") for group in groups]
    refusals = [(one["node"], one["op"], one["reason"], f"{one['macs_share']:.1%}") for one in record["refusals"]]
    cost = record["cost"]
    size = f"{cost['macs']:,} MACs, {cost['params']:,} parameters"
    told = f"<p>{size}; {len(rows)} groups control {record['prunable_share']:.1%} of the MACs.</p>"
    return (
        told
        + table(("group", "channels", "share of MACs"), rows[:MOST_ROWS])
        + table(("left alone", "operator", "why", "share of MACs"), refusals[:MOST_ROWS], text=True)
    )


def benchmark_html(record: Mapping[str, Any]) -> str:
    """Returns the latency of models beside each other.

    Args:
        record: What ``bocr-onnx bench --json`` prints.
    """
    rows = []
    for one in record["models"]:
        times = interval(one.get("speedup")) or "1"
        rows.append((one["model"], f"{one['median_ms']:.3f}", f"{one['iqr_ms']:.3f}", f"{one['size_bytes']:,}", times))
    return table(("model", "median, ms", "interquartile range, ms", "B", "times as fast, 99 % interval"), rows)
