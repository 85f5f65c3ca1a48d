"""Charts of a run as Vega-Lite, drawn to SVG: no script, in a light and in a dark theme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Spec = dict[str, Any]
Row = Mapping[str, Any]

WIDTH, HEIGHT = 640, 220
MAX_ROWS = 5_000
"""Points of a chart; more would not be told apart."""

INTERRUPTED = 3
"""Times the median beyond which a run was interrupted."""

THEMES: dict[str, Spec] = {
    "light": {"ink": "#24292f", "grid": "#d8dee4", "marks": ["#0969da", "#bc4c00", "#1a7f37", "#8250df"]},
    "dark": {"ink": "#e6edf3", "grid": "#30363d", "marks": ["#58a6ff", "#f0883e", "#3fb950", "#bc8cff"]},
}


def drawn(spec: Spec) -> dict[str, str]:
    """Returns a chart as SVG by theme; empty where vl-convert-python is not installed."""
    try:
        import vl_convert
    except ImportError:
        return {}
    return {name: str(vl_convert.vegalite_to_svg(spec | {"config": _config(theme)})) for name, theme in THEMES.items()}


def _config(theme: Spec) -> Spec:
    ink, grid = theme["ink"], theme["grid"]
    axis = {"labelColor": ink, "titleColor": ink, "gridColor": grid, "domainColor": grid, "tickColor": grid}
    return {
        "background": "transparent", "axis": axis, "view": {"stroke": None}, "range": {"category": theme["marks"]},
        "legend": {"labelColor": ink, "titleColor": ink}, "mark": {"color": theme["marks"][0]},
        "header": {"labelColor": ink, "titleColor": ink},
    }  # fmt: skip


def _spec(rows: Sequence[Row], **parts: Any) -> Spec:
    values = [dict(row) for row in rows[:MAX_ROWS]]
    return {"width": WIDTH, "height": HEIGHT, "data": {"values": values}, **parts}


def kept_chart(runs: Mapping[str, Sequence[Row]]) -> Spec:
    """Returns the kept share of every group over depth, above the share of the MACs that it controls.

    Args:
        runs: Rows of `groups` of a report, by name of the run.
    """
    rows = [
        {"run": run, "depth": i + 1, "kept": group["n_kept"] / max(group["n_channels"], 1), "share": group["share"]}
        for run, groups in runs.items()
        for i, group in enumerate(groups)
    ]
    depth = {
        "field": "depth",
        "type": "ordinal",
        "title": "group, from input to output",
        "axis": {"labelOverlap": True, "labelAngle": 0},
    }
    offset = {"xOffset": {"field": "run"}, "color": {"field": "run", "type": "nominal", "title": None}}
    by_run = offset if len(runs) > 1 else {}

    def bars(field: str, title: str, height: int) -> Spec:
        y = {"field": field, "type": "quantitative", "title": title, "axis": {"format": "%"}}
        return {"mark": "bar", "width": WIDTH, "height": height, "encoding": {"x": depth, "y": y, **by_run}}

    spec = _spec(rows, vconcat=[bars("kept", "channels kept", 160), bars("share", "share of MACs", 80)])
    return {name: value for name, value in spec.items() if name not in ("width", "height")}


def search_chart(trials: Sequence[Row]) -> Spec:
    """Returns the distortion of every trial by what proposed it, and the least so far.

    Args:
        trials: Rows of `number`, `distortion` and `origin`, in order.
    """
    best, rows = float("inf"), []
    for trial in trials:
        best = min(best, float(trial["distortion"]))
        rows.append({**trial, "trial": trial["number"] + 1, "best": best})
    x = {"field": "trial", "type": "quantitative", "title": "trial", "axis": {"tickMinStep": 1}}
    scale = {"type": "log", "nice": False, "zero": False}
    y = {"field": "distortion", "type": "quantitative", "title": "distortion of the output", "scale": scale}
    points = {"mark": {"type": "point", "filled": True, "size": 45}, "encoding": {
        "x": x, "y": y, "color": {"field": "origin", "type": "nominal", "title": "proposed by"}}}  # fmt: skip
    least = {"mark": {"type": "line", "interpolate": "step-after", "opacity": 0.6}, "encoding": {
        "x": x, "y": {**y, "field": "best"}}}  # fmt: skip
    return _spec(rows, layer=[least, points])


def latency_chart(samples: Mapping[str, Sequence[float]]) -> Spec:
    """Returns the spread of measured times in ms by name of the model, without runs that something interrupted."""
    rows = [
        {"model": name, "ms": value}
        for name, values in samples.items()
        for value in values[:1_000]
        if value <= INTERRUPTED * sorted(values)[len(values) // 2]
    ]
    x = {"field": "ms", "type": "quantitative", "title": "time of a run in ms", "scale": {"zero": True}}
    y = {"field": "model", "type": "nominal", "title": None, "sort": list(samples)}
    spec = _spec(rows, mark={"type": "boxplot", "extent": 1.5}, encoding={"x": x, "y": y})
    return spec | {"height": 40 * len(samples)}
