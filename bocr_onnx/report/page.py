"""A run as one HTML file: no script, no request, light and dark; every chart has its table beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from bocr_onnx.report import charts

Record = Mapping[str, Any]

STYLE = """
:root{color-scheme:light dark;--ink:#24292f;--soft:#57606a;--line:#d8dee4;--back:#fff;--box:#f6f8fa}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#8d96a0;--line:#30363d;--back:#0d1117;--box:#161b22}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:60rem;font:16px/1.5 system-ui,sans-serif}
body{color:var(--ink);background:var(--back)}
h1{font-size:1.5rem;overflow-wrap:anywhere}h2{font-size:1.15rem;margin-top:2rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{padding:.3rem .6rem;border-bottom:1px solid var(--line);text-align:right;vertical-align:top}
th:first-child,td:first-child{text-align:left;min-width:6.5rem;overflow-wrap:break-word}
th{color:var(--soft);font-weight:600}.text th,.text td{text-align:left}
details{margin:.5rem 0}summary{cursor:pointer;color:var(--soft)}
pre{font:14px/1.45 ui-monospace,monospace;padding:.8rem;background:var(--box)}
pre{white-space:pre-wrap;overflow-wrap:anywhere}
svg{max-width:100%;height:auto}.dark{display:none}
@media(prefers-color-scheme:dark){.light{display:none}.dark{display:block}}
.missed{border-left:4px solid #cf222e;padding-left:.8rem}.held{border-left:4px solid #1a7f37;padding-left:.8rem}
"""

POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(runs: Mapping[str, Record], trials: Sequence[Record], command: str) -> str:
    """Returns the page.

    Args:
        runs: Content of report.json by the name of the run; the first one is told, others are compared with it.
        trials: Rows of `number`, `distortion`, `origin` and `score` of the first run, in order; empty without a search.
        command: What makes the first run again.

    Raises:
        KeyError: A record lacks a part.
    """
    name, record = next(iter(runs.items()))
    parts = [
        f"<h1>{escape(str(record['model']['path']))} → {escape(str(record['output']))}</h1>",
        _verdict(record),
        _section("Before and after", _table(_figure_head(runs), _figure_rows(runs))),
        _kept(runs),
        _search(trials),
        _latency(record),
        _outputs(record),
        _section("Left alone", _table(("node", "operator", "why", "share of MACs"), _refusals(record), text=True)),
        _section("How it was made", _table(("", ""), _made(record), text=True) + f"<pre>{escape(command)}</pre>"),
    ]
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(name)}</title><style>{STYLE}</style></head><body><main>"
    )
    return head + "".join(parts) + "</main></body></html>\n"


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[object]], *, text: bool = False) -> str:
    """Returns a table, all of whose cells are words where it is one of text; the first column always is."""
    cells = ["".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows]
    if not cells:
        return ""
    title = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    kind = ' class="text"' if text else ""
    return f'<div class="scroll"><table{kind}><thead><tr>{title}</tr></thead><tbody>{body}</tbody></table></div>'


def _figure(spec: charts.Spec, label: str, table: str) -> str:
    """Returns a chart in both themes with its table under it; the table alone, open, where nothing draws."""
    drawn = charts.drawn(spec)
    themes = "".join(f'<div class="{name}" aria-hidden="true">{svg}</div>' for name, svg in drawn.items())
    opened = "" if drawn else " open"
    return f"{themes}<details{opened}><summary>{escape(label)}</summary>{table}</details>"


def _verdict(record: Record) -> str:
    proof = record["proof"]
    text = f"Proved equal to the masked original within {proof['max_rel_diff']:.1e} relative."
    if record["missed"]:
        rows = "".join(f"<li>{escape(str(one))}</li>" for one in record["missed"])
        return f'<div class="missed"><p>Missed:</p><ul>{rows}</ul><p>{text}</p></div>'
    return f'<div class="held"><p>Every target is met. {text}</p></div>'


FIGURES = (("macs", "MACs"), ("params", "parameters"), ("size_bytes", "file size, B"))


def _figure_head(runs: Mapping[str, Record]) -> tuple[str, ...]:
    names = [f"slim ({name})" for name in runs] if len(runs) > 1 else ["slim"]
    int8 = ["slim, int8"] if next(iter(runs.values())).get("int8") else []
    return ("", "original", *names, *int8)


def _figure_rows(runs: Mapping[str, Record]) -> list[tuple[str, ...]]:
    records = list(runs.values())
    first, int8 = records[0], records[0].get("int8") or {}
    before, rows = first["baseline"], []
    for field, title in FIGURES:
        kept = [f"{r['result'][field]:,} ({r['result'][field] / max(before[field], 1):.1%})" for r in records]
        extra = (
            [f"{int8[field]:,} ({int8[field] / max(before[field], 1):.1%})" if field in int8 else ""] if int8 else []
        )
        rows.append((title, f"{before[field]:,}", *kept, *extra))
    values = [before["accuracy"], *(r["result"]["accuracy"] for r in records), *([int8["accuracy"]] if int8 else [])]
    if values[0] is not None:
        rows.append((first["metric"], *("" if v is None else f"{v:.2%}" for v in values)))
    times = [
        before["latency_ms"],
        *(r["result"]["latency_ms"] for r in records),
        *([int8["latency_ms"]] if int8 else []),
    ]
    if times[0]:
        rows.append((f"latency on {_device(first)}", *("" if v is None else f"{v:.3f} ms" for v in times)))
    speedups = [r["latency"].get("speedup") for r in records] + ([int8.get("speedup")] if int8 else [])
    if any(speedups):
        rows.append(("times as fast, 99 % interval", "1", *map(_speedup, speedups)))
    return rows


def _speedup(one: Record | None) -> str:
    return "" if not one else f"{one['value']:.2f} ({one['low']:.2f} to {one['high']:.2f})"


def _device(record: Record) -> str:
    return str(record["latency"].get("device", {}).get("device", "host"))


def _kept(runs: Mapping[str, Record]) -> str:
    groups = {name: record["groups"] for name, record in runs.items()}
    rows = [
        (run, group["name"], f"{group['n_kept']} of {group['n_channels']}", f"{group['share']:.1%}")
        for run, own in groups.items()
        for group in own
    ]
    if not rows:
        return ""
    table = _table(("run", "group", "kept", "share of MACs"), rows)
    return _section("Channels kept", _figure(charts.kept_chart(groups), f"all {len(rows)} groups", table))


def _search(trials: Sequence[Record]) -> str:
    if not trials:
        return ""
    rows = [(t["number"] + 1, f"{t['distortion']:.4f}", f"{t['score']:.2%}", t["origin"]) for t in trials]
    table = _table(("trial", "distortion", "score", "proposed by"), rows)
    return _section("Search", _figure(charts.search_chart(trials), f"all {len(rows)} trials", table))


STAGES = (("baseline", "original"), ("result", "slim"), ("int8", "slim, int8"))


def _latency(record: Record) -> str:
    latency = record["latency"]
    samples = {title: latency[f"{n}_samples_ms"] for n, title in STAGES if latency.get(f"{n}_samples_ms")}
    if not samples:
        return ""
    rows = [
        (title, f"{latency[f'{n}_median_ms']:.3f}", f"{latency[f'{n}_iqr_ms']:.3f}", len(samples[title]))
        for n, title in STAGES
        if title in samples
    ]
    table = _table(("model", "median, ms", "interquartile range, ms", "runs"), rows)
    return _section(f"Latency on {_device(record)}", _figure(charts.latency_chart(samples), "figures", table))


def _outputs(record: Record) -> str:
    rows = [
        (one["name"], *(_number(one.get(key)) for key in ("distortion", "correlation", "largest_error")),
         ", ".join(f"{name} {_number(value)}" for name, value in one.get("figures", {}).items()))
        for one in record["outputs"]
    ]  # fmt: skip
    return _section("Outputs", _table(("", "distortion", "correlation", "largest error", "of its task"), rows))


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else ""


def _refusals(record: Record) -> list[tuple[object, ...]]:
    return [(r["node"], r["op"], r["reason"], f"{r['macs_share']:.1%}") for r in record["refusals"]]


def _made(record: Record) -> list[tuple[object, ...]]:
    search, tool = record["search"], record["tool"]
    target = ", ".join(f"{name} {share:g}" for name, share in record["target"].items())
    machine = record["latency"].get("device", {}).get("machine", {})
    rows: list[tuple[object, ...]] = [
        ("target", target),
        ("search", f"{search['strategy']}, {search['trials']} trials, seed {search['seed']}"),
        ("recovery", search["recover"]),
        ("images", record["data"].get("path", "none")),
        ("device", f"{_device(record)} {machine.get('cpu', '')}"),
        ("versions", f"{tool['name']} {tool['version']}, onnx {tool['onnx']}, onnxruntime {tool['onnxruntime']}"),
        ("seconds", ", ".join(f"{name} {value:.1f}" for name, value in record["seconds"].items())),
    ]
    return rows
