"""A report as rows of text, for the terminal and for Markdown."""

from __future__ import annotations

from bocr_onnx.report.record import Figures, Report
from bocr_onnx.report.speed import clock_text, speed_text

Row = tuple[str, str, str, str]


def figure_rows(report: Report) -> tuple[Row, ...]:
    """Returns the before/after table: name, original, slim, change."""
    before, after = report.baseline, report.result
    rows = [
        _ratio("MACs", before.macs, after.macs, _count),
        _ratio("parameters", before.params, after.params, _count),
        _ratio("file size", before.size_bytes, after.size_bytes, _bytes),
    ]
    if before.accuracy is not None and after.accuracy is not None:
        points = 100 * (after.accuracy - before.accuracy)
        rows.append((report.metric, f"{before.accuracy:.2%}", f"{after.accuracy:.2%}", f"{points:+.2f} points"))
    if before.latency_ms and after.latency_ms:
        rows.append(
            (
                f"latency, batch {report.latency.get('batch', 1)}, {clock_text(report.latency)}",
                f"{before.latency_ms:.3f} ms",
                f"{after.latency_ms:.3f} ms",
                speed_text(before.latency_ms, after.latency_ms),
            )
        )
    return tuple(rows)


def markdown(report: Report) -> str:
    """Returns report.md."""
    lines = [
        f"# {report.model['path']} -> {report.output}",
        "",
        "| | original | slim | change |",
        "|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in figure_rows(report)),
        "",
        f"Target: {', '.join(f'{k} {v:g}' for k, v in report.target.items())}. "
        f"Search: {report.search['strategy']}, {report.search['trials']} trials, seed {report.search['seed']}, "
        f"{report.search['seconds']:.0f} s.",
        "",
        f"Proof: the slim model equals the masked original within {report.proof['max_rel_diff']:.2g} relative "
        f"({report.proof['max_abs_diff']:.2g} absolute).",
        "",
        *_missed(report),
        *_data(report),
        *([text, ""] if (text := undecided_text(report)) else []),
        "## Kept channels",
        "",
        "| group | kept | of | share of MACs |",
        "|---|---|---|---|",
        *(f"| `{g.name}` | {g.n_kept} | {g.n_channels} | {g.share:.1%} |" for g in report.groups),
        "",
        "## Left alone",
        "",
        *(
            f"- `{r['node']}` ({r['op']}): {r['reason']}; {r['n_channels']} channels, {r['macs_share']:.1%} of MACs"
            for r in report.refusals
        ),
        *([] if report.refusals else ["Nothing."]),
    ]
    return "\n".join(lines) + "\n"


def _missed(report: Report) -> list[str]:
    return ["**Missed:**", "", *(f"- {m}" for m in report.missed), ""] if report.missed else []


def undecided_text(report: Report) -> str:
    """Returns which groups kept their first channels for want of anything better; empty where there are none."""
    names = report.search.get("undecided", [])
    return f"Nothing tells the channels of {', '.join(names)} apart: the first ones stay." if names else ""


def _data(report: Report) -> list[str]:
    if not report.data:
        return []
    parts = report.data["parts"]
    used = ", ".join(f"{name} {part['n_images']}" for name, part in parts.items())
    return [f"Images ({report.data['path']}): {used}. No image is in two of score, recovery and final.", ""]


def _ratio(name: str, before: int, after: int, show: object) -> Row:
    assert callable(show)
    return name, show(before), show(after), f"{after / max(before, 1):.1%} kept"


def _count(value: int) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.2f} {unit}"
    return str(value)


def _bytes(value: int) -> str:
    for unit, size in (("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.2f} {unit}"
    return f"{value} B"


__all__ = ["Figures", "Row", "figure_rows", "markdown"]
