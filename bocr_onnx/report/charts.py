"""Charts of a run as Vega-Lite, drawn to SVG: no script, in a light and in a dark theme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Spec = dict[str, Any]
Row = Mapping[str, Any]

WIDTH, HEIGHT = 640, 220
MAX_ROWS = 5_000
"""Points of a chart; more would not be told apart."""

LABEL_WIDTH, ROW_HEIGHT = 230, 14

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
        "header": {"labelColor": ink, "titleColor": ink}, "boxplot": {"rule": {"color": ink}}, "text": {"color": ink},
    }  # fmt: skip


def _spec(rows: Sequence[Row], **parts: Any) -> Spec:
    values = [dict(row) for row in rows[:MAX_ROWS]]
    return {"width": WIDTH, "height": HEIGHT, "data": {"values": values}, **parts}


def kept_chart(runs: Mapping[str, Sequence[Row]]) -> Spec:
    """Returns the kept share of every group over depth, above the share of the MACs that it controls and its error.

    Args:
        runs: Rows of `groups` of a report, by name of the run.
    """
    rows = [
        {"run": run, "depth": i + 1, "kept": group["n_kept"] / max(group["n_channels"], 1), "share": group["share"],
         "error": group.get("error")}
        for run, groups in runs.items()
        for i, group in enumerate(groups)
    ]  # fmt: skip
    depth = {
        "field": "depth",
        "type": "ordinal",
        "title": "group, from input to output",
        "axis": {"labelOverlap": True, "labelAngle": 0},
    }
    offset = {"xOffset": {"field": "run"}, "color": {"field": "run", "type": "nominal", "title": None}}
    by_run = offset if len(runs) > 1 else {}

    def bars(field: str, title: str, height: int, form: str = "%") -> Spec:
        y = {"field": field, "type": "quantitative", "title": title, "axis": {"format": form, "tickCount": 3}}
        return {"mark": "bar", "width": WIDTH, "height": height, "encoding": {"x": depth, "y": y, **by_run}}

    parts = [bars("kept", "channels kept", 160), bars("share", "share of MACs", 80)]
    if all(row["error"] is not None for row in rows):
        parts.append(bars("error", "error at half", 80, ".1~g"))
    spec = _spec(rows, vconcat=parts)
    return {name: value for name, value in spec.items() if name not in ("width", "height")}


def tree_chart(names: Sequence[str], joins: Sequence[Sequence[float]]) -> Spec:
    """Returns the tree of groups: those that join near the left are alike and move together while a search is young.

    Args:
        names: Groups, in order.
        joins: The two clusters of each join, and their distance; a cluster after the groups is an earlier join.
    """
    n = len(names)
    places = {leaf: float(row) for row, leaf in enumerate(_leaves(n, joins))}
    distances = dict.fromkeys(range(n), 0.0)
    rows = []
    for number, join in enumerate(joins):
        a, b, distance = int(join[0]), int(join[1]), float(join[2])
        corners = [(distances[a], places[a]), (distance, places[a]), (distance, places[b]), (distances[b], places[b])]
        rows += [{"join": number, "corner": i, "distance": x, "row": y} for i, (x, y) in enumerate(corners)]
        places[n + number], distances[n + number] = (places[a] + places[b]) / 2, distance
    labels = [{"name": names[leaf], "row": places[leaf], "distance": 0.0} for leaf in range(n)]
    y = {"field": "row", "type": "quantitative", "axis": None, "scale": {"domain": [-0.6, n - 0.4]}}
    x = {"field": "distance", "type": "quantitative", "title": "how unlike what joins is", "axis": {"tickCount": 4}}
    lines = {"mark": "line", "encoding": {
        "x": x, "y": y, "detail": {"field": "join"}, "order": {"field": "corner"}}}  # fmt: skip
    text = {"type": "text", "align": "right", "dx": -4, "fontSize": 10, "limit": LABEL_WIDTH}
    written = {"data": {"values": labels}, "mark": text, "encoding": {
        "x": x, "y": y, "text": {"field": "name"}}}  # fmt: skip
    spec = _spec(rows, layer=[lines, written])
    padding = {"left": LABEL_WIDTH, "right": 5, "top": 5, "bottom": 5}
    return spec | {"width": WIDTH - LABEL_WIDTH, "height": ROW_HEIGHT * n, "padding": padding}


def _leaves(n: int, joins: Sequence[Sequence[float]]) -> list[int]:
    """Returns the groups in an order in which no two joins cross."""
    members = {i: [i] for i in range(n)}
    for number, join in enumerate(joins):
        members[n + number] = members.pop(int(join[0])) + members.pop(int(join[1]))
    return [leaf for cluster in members.values() for leaf in cluster]


def front_chart(points: Sequence[Row], metric: str) -> Spec:
    """Returns scores against the cost that was kept, and the points that no other is better than, joined by a line.

    Args:
        points: Rows of `name`, `cost` (share of the original's), `score` and `dominated`.
        metric: What a score means.
    """
    x = {"field": "cost", "type": "quantitative", "title": "MACs kept", "axis": {"format": "%"}}
    y = {"field": "score", "type": "quantitative", "title": metric, "axis": {"format": ".1%"}, "scale": {"zero": False}}
    best = {"mark": {"type": "line", "opacity": 0.6}, "transform": [{"filter": "!datum.dominated"}],
            "encoding": {"x": x, "y": y}}  # fmt: skip
    dots = {"mark": {"type": "point", "filled": True, "size": 60}, "encoding": {
        "x": x, "y": y, "color": {"field": "name", "type": "nominal", "title": None, "sort": None}}}  # fmt: skip
    return _spec(points, layer=[best, dots])


def finetuning_chart(history: Sequence[Row]) -> Spec:
    """Returns the loss and the score on images that decide, after every epoch.

    Args:
        history: Rows of `epoch`, `loss` and `score`, either None where there is none.
    """
    x = {"field": "epoch", "type": "quantitative", "title": "epochs"}

    def line(field: str, title: str, form: str) -> Spec:
        y = {"field": field, "type": "quantitative", "title": title, "axis": {"format": form}, "scale": {"zero": False}}
        return {"mark": {"type": "line", "point": True}, "width": WIDTH, "height": 110, "encoding": {"x": x, "y": y}}

    known = [name for name in ("score", "loss") if any(row.get(name) is not None for row in history)]
    forms = {"score": ".1%", "loss": ".3~g"}
    spec = _spec(history, vconcat=[line(name, name, forms[name]) for name in known])
    return {name: value for name, value in spec.items() if name not in ("width", "height")}


def kernel_chart(times: Mapping[str, Mapping[str, float]]) -> Spec:
    """Returns the time in ms of every kind of operator, a bar per model.

    Args:
        times: By name of the model, then by operator, the longest first.
    """
    rows = [{"model": m, "operator": op, "ms": ms} for m, own in times.items() for op, ms in own.items()]
    order = list(next(iter(times.values())))
    x = {"field": "ms", "type": "quantitative", "title": "ms of a run"}
    y = {"field": "operator", "type": "nominal", "title": None, "sort": order}
    colour = {"field": "model", "type": "nominal", "title": None, "sort": list(times)}
    encoding = {"x": x, "y": y, "yOffset": {"field": "model", "sort": list(times)}, "color": colour}
    return _spec(rows, mark="bar", encoding=encoding) | {"height": 30 * len(order)}


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
