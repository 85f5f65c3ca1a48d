"""A report as rows of text, for the terminal and for Markdown."""

from __future__ import annotations

from bocr_onnx.cost import QUANTITIES, Quantity
from bocr_onnx.report.record import Figures, Report
from bocr_onnx.report.speed import clock_text, is_slower, speed_text

Row = tuple[str, str, str, str]

PREFIXES = {"": (("G", 1e9), ("M", 1e6), ("k", 1e3)), "B": (("M", 1e6), ("k", 1e3))}
"""Prefixes of a quantity by its unit."""

_NEAR = ("distortion", "correlation", "largest_error")


def figure_rows(report: Report) -> tuple[Row, ...]:
    """Returns the before/after table: name, original, slim, change."""
    before, after = report.baseline, report.result
    rows = [_ratio(q, before.quantities[q.field], after.quantities[q.field]) for q in QUANTITIES.values()]
    if before.accuracy is not None and after.accuracy is not None:
        points = 100 * (after.accuracy - before.accuracy)
        rows.append((report.metric, f"{before.accuracy:.2%}", f"{after.accuracy:.2%}", f"{points:+.2f} points"))
    if there := report.latency.get("agreement"):
        pair = there["baseline"], there["result"]
        points = 100 * (pair[1]["there"] - pair[0]["there"])
        rows.append(
            (
                f"{report.metric}{_place(report)}, {pair[0]['n_images']} images",
                f"{pair[0]['there']:.2%} (here {pair[0]['here']:.2%})",
                f"{pair[1]['there']:.2%} (here {pair[1]['here']:.2%})",
                f"{points:+.2f} points",
            )
        )
    if before.latency_ms and after.latency_ms:
        rows.append(
            (
                f"latency{_place(report)}, batch {report.latency.get('batch', 1)}, {clock_text(report.latency)}",
                f"{before.latency_ms:.3f} ms",
                f"{after.latency_ms:.3f} ms",
                speed_text(before.latency_ms, after.latency_ms),
            )
        )
    return tuple(rows)


def int8_rows(report: Report) -> tuple[Row, ...]:
    """Returns the three stages: name, original, slim, and slim in int8; none where there is no model in int8."""
    before, after, int8 = report.baseline, report.result, report.int8
    if not int8:
        return ()
    sizes = (f"{size / 1e6:.2f} MB" for size in (before.size_bytes, after.size_bytes, int8["size_bytes"]))
    scores = (f"{score:.2%}" for score in (before.accuracy or 0.0, after.accuracy or 0.0, int8["accuracy"]))
    times = (f"{time:.3f} ms" for time in (before.latency_ms or 0.0, after.latency_ms or 0.0, int8["latency_ms"]))
    size, score, time = (tuple(values) for values in (sizes, scores, times))
    return (
        ("file size", size[0], size[1], size[2]),
        (report.metric, score[0], score[1], score[2]),
        (f"latency{_place(report)}", time[0], time[1], time[2]),
    )


def int8_text(report: Report) -> str:
    """Returns how the model in int8 was made; empty without one."""
    if not report.int8:
        return ""
    left = ", ".join(f"{n} {op}" for op, n in sorted(report.int8["float_kernels"].items())) or "nothing"
    speed = report.int8["speedup"]
    return (
        f"int8: {report.int8['output']}, {report.int8['activations']} activations, still in floating point: {left}; "
        f"{speed['value']:.2f} times as fast as the original ({speed['low']:.2f} to {speed['high']:.2f})."
    )


def mobile_text(report: Report) -> str:
    """Returns where the files for phones are and what accelerators would run of them; empty without them."""
    if not report.mobile:
        return ""
    told = (f"{p['provider']} {p['n_supported']} of {p['n_nodes']} nodes in {p['n_partitions']} (worth a try: "
            f"{p['verdict']})" for p in report.mobile["partitions"])  # fmt: skip
    return f"For phones: {report.mobile['ort']}; {', '.join(told)}."


def _place(report: Report) -> str:
    device = report.latency.get("device", {}).get("device", "host")
    return "" if device == "host" else f" on {device}"


def remarks(report: Report) -> tuple[str, ...]:
    """Returns what must be said beside the figures, a sentence each."""
    told = (
        floor_text,
        latency_text,
        quality_text,
        guess_text,
        undecided_text,
        difference_text,
        slower_text,
        int8_text,
        mobile_text,
    )
    return tuple(text for tell in told if (text := tell(report)))


def floor_text(report: Report) -> str:
    """Returns which budgets were tried for a floor under the score, and which one held; empty without a floor."""
    floor = report.search.get("floor")
    if not floor:
        return ""
    name = floor["minimize"]
    rows = sorted(floor["budgets"], key=lambda row: -row[name])
    tried = ", ".join(f"{row[name]:g} {'holds' if row['holds'] else 'misses'} ({row['margin']:+.2%})" for row in rows)
    return f"Floor: {floor['floor']}; {name} {tried} above it on images that decide."


def latency_text(report: Report) -> str:
    """Returns what was predicted and measured of finalists; empty where latency was not bounded."""
    rows = report.latency.get("finalists", [])
    told = ", ".join(f"{row['predicted']:.3f} predicted, {row['measured']:.3f} measured" for row in rows)
    form = ", both in int8" if report.int8 else ""
    return f"Latency of finalists, share of the original{form}: {told}." if rows else ""


def slower_text(report: Report) -> str:
    """Returns what to do about a slim model that is slower than its original; empty where it is not."""
    before, after = report.baseline.latency_ms, report.result.latency_ms
    if not (before and after and is_slower(before, after)):
        return ""
    return "Slower than the original: try a coarser grid, --round-to 8 or 16."


def difference_text(report: Report) -> str:
    """Returns that a device computes something else than this host; empty where it does not, or was not asked."""
    there = report.latency.get("agreement", {})
    which = {"baseline": "the original", "result": "the slim model"}
    found = [text for name, text in which.items() if there.get(name, {}).get("differs")]
    return f"The outputs of {' and '.join(found)}{_place(report)} differ from those on this host." if found else ""


def markdown(report: Report) -> str:
    """Returns report.md."""
    lines = [
        f"# {report.model['path']} -> {report.output}",
        "",
        "| | original | slim | change |",
        "|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in figure_rows(report)),
        "",
        *_int8(report),
        f"Target: {', '.join(f'{k} {v:g}' for k, v in report.target.items())}. "
        f"Search: {report.search['strategy']}, {report.search['trials']} trials, seed {report.search['seed']}, "
        f"{report.search['seconds']:.0f} s.",
        "",
        f"Proof: the slim model equals the masked original within {report.proof['max_rel_diff']:.2g} relative "
        f"({report.proof['max_abs_diff']:.2g} absolute).",
        "",
        *_missed(report),
        *_data(report),
        *(line for text in remarks(report) for line in (text, "")),
        *_outputs(report),
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


def _int8(report: Report) -> list[str]:
    rows = [f"| {' | '.join(row)} |" for row in int8_rows(report)]
    return ["| | original | slim | slim, int8 |", "|---|---|---|---|", *rows, ""] if rows else []


def _missed(report: Report) -> list[str]:
    return ["**Missed:**", "", *(f"- {m}" for m in report.missed), ""] if report.missed else []


def quality_text(report: Report) -> str:
    """Returns what a user of a model that nobody measured must know; empty where it was measured."""
    return "" if report.result.accuracy is not None else "Weights not recovered, quality not measured: give images."


def output_rows(report: Report) -> tuple[Row, list[Row]]:
    """Returns how near each output is to the original's: the names of the columns, and a row per output."""
    own = list(dict.fromkeys(name for o in report.outputs for name in o.get("figures", ())))
    rows = []
    for o in report.outputs:
        figures = o.get("figures", {})
        told = (_number(figures[name]) if name in figures else "" for name in own)
        near = ("" if o["largest_error"] is None else _number(o[key]) for key in _NEAR)  # detections have none of these
        rows.append((o["name"], *near, *told))
    return ("", *(key.replace("_", " ") for key in _NEAR), *own), rows


def _number(value: float | None) -> str:
    return "constant" if value is None else f"{value:.4g}"


def _outputs(report: Report) -> list[str]:
    if not report.outputs:
        return []
    names, rows = output_rows(report)
    head = ["## Outputs on unseen images", "", f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    return [*head, *(f"| `{row[0]}` | {' | '.join(row[1:])} |" for row in rows), ""]


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


def guess_text(report: Report) -> str:
    """Returns which preprocessing was guessed, a sentence; empty where none was."""
    if not report.data.get("preprocessing_guessed"):
        return ""
    return f"Preprocessing {report.data['preprocessing']['name']} is a guess."


def _ratio(quantity: Quantity, before: int, after: int) -> Row:
    return quantity.label, _shown(before, quantity), _shown(after, quantity), f"{after / max(before, 1):.1%} kept"


def _shown(value: int, quantity: Quantity) -> str:
    for prefix, size in PREFIXES[quantity.unit]:
        if value >= size:
            return f"{value / size:.2f} {prefix}{quantity.unit}"
    return f"{value} {quantity.unit}".rstrip()


__all__ = ["Figures", "Row", "figure_rows", "markdown"]
