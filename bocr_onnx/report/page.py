"""A run as one HTML file: no script, no request, light and dark; every chart has its table under it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from bocr_onnx.report import charts
from bocr_onnx.report.html import document, figure, picture, section, table

Record = Mapping[str, Any]

MAX_LEAVES = 100
"""Groups of a tree that can be read."""


@dataclass(frozen=True, slots=True)
class Extras:
    """What a page shows beside the records of runs.

    Attributes:
        trials: Rows of `number`, `distortion`, `origin` and `score` of the first run, in order.
        kernels: Time in ms of every kind of operator of the original and of the slim model, by their names.
        examples: JPEGs of what both models find on unseen images.
        command: What makes the first run again.
    """

    trials: Sequence[Record] = ()
    kernels: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    examples: Sequence[bytes] = ()
    command: str = ""


def page(runs: Mapping[str, Record], extras: Extras) -> str:
    """Returns the page.

    Args:
        runs: Content of report.json by the name of the run; the first one is told, others are compared with it.
        extras: The rest.

    Raises:
        KeyError: A record lacks a part.
    """
    name, record = next(iter(runs.items()))
    made = table(("", ""), _made(record), text=True) + (
        f"<pre>{escape(extras.command)}</pre>" if extras.command else ""
    )
    return document(name, [
        f"<h1>{escape(str(record['model']['path']))} → {escape(str(record['output']))}</h1>",
        verdict(record),
        section("Before and after", figures(runs)),
        _front(runs),
        _examples(record, extras.examples),
        _kept(runs),
        _tree(record),
        _search(extras.trials),
        _finetuning(record),
        _latency(record),
        _kernels(extras.kernels),
        _outputs(record),
        section("Left alone", table(("node", "operator", "why", "share of MACs"), _refusals(record), text=True)),
        section("How it was made", made),
    ])  # fmt: skip


def verdict(record: Record) -> str:
    """Returns whether every target is met, and what the proof says."""
    proof = record["proof"]
    text = f"Proved equal to the masked original within {proof['max_rel_diff']:.1e} relative."
    if record["missed"]:
        rows = "".join(f"<li>{escape(str(one))}</li>" for one in record["missed"])
        return f'<div class="missed"><p>Missed:</p><ul>{rows}</ul><p>{text}</p></div>'
    return f'<div class="held"><p>Every target is met. {text}</p></div>'


FIGURES = (("macs", "MACs"), ("params", "parameters"), ("size_bytes", "file size, B"))


def figures(runs: Mapping[str, Record]) -> str:
    """Returns what the original and the slim models cost and score."""
    return table(_figure_head(runs), _figure_rows(runs))


def _figure_head(runs: Mapping[str, Record]) -> tuple[str, ...]:
    names = [f"slim ({name})" for name in runs] if len(runs) > 1 else ["slim"]
    int8 = ["slim, int8"] if next(iter(runs.values())).get("int8") else []
    return ("", "original", *names, *int8)


def _figure_rows(runs: Mapping[str, Record]) -> list[tuple[str, ...]]:
    records = list(runs.values())
    first, int8 = records[0], records[0].get("int8") or {}
    before, rows = first["baseline"], []
    for name, title in FIGURES:
        kept = [f"{r['result'][name]:,} ({r['result'][name] / max(before[name], 1):.1%})" for r in records]
        extra = [f"{int8[name]:,} ({int8[name] / max(before[name], 1):.1%})" if name in int8 else ""] if int8 else []
        rows.append((title, f"{before[name]:,}", *kept, *extra))
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
        rows.append(("times as fast, 99 % interval", "1", *map(interval, speedups)))
    return rows


def interval(one: Record | None) -> str:
    """Returns how many times as fast, with its interval; empty where that was not measured."""
    return "" if not one else f"{one['value']:.2f} ({one['low']:.2f} to {one['high']:.2f})"


def _device(record: Record) -> str:
    return str(record["latency"].get("device", {}).get("device", "host"))


def _kept(runs: Mapping[str, Record]) -> str:
    groups = {name: record["groups"] for name, record in runs.items()}
    rows = [
        (run, group["name"], f"{group['n_kept']} of {group['n_channels']}", f"{group['share']:.1%}",
         _number(group.get("error")))
        for run, own in groups.items()
        for group in own
    ]  # fmt: skip
    if not rows:
        return ""
    all_rows = table(("run", "group", "kept", "share of MACs", "error with half of it cut"), rows)
    return section("Channels kept", figure(charts.kept_chart(groups), f"all {len(rows)} groups", all_rows))


def _front(runs: Mapping[str, Record]) -> str:
    """Returns scores against costs of several runs, the original among them."""
    first = next(iter(runs.values()))
    points = [{"name": "original", "cost": 1.0, "score": first["baseline"]["accuracy"]}]
    points += [
        {"name": name, "cost": r["result"]["macs"] / max(r["baseline"]["macs"], 1), "score": r["result"]["accuracy"]}
        for name, r in runs.items()
    ]
    if len(runs) < 2 or any(point["score"] is None for point in points):
        return ""
    for one in points:
        better = (o for o in points if o["cost"] <= one["cost"] and o["score"] >= one["score"])
        one["dominated"] = any((o["cost"], o["score"]) != (one["cost"], one["score"]) for o in better)
    rows = [(p["name"], f"{p['cost']:.1%}", f"{p['score']:.2%}", "another is better" * p["dominated"]) for p in points]
    under = table(("", "MACs kept", first["metric"], ""), rows)
    return section("Score against cost", figure(charts.front_chart(points, first["metric"]), "all points", under))


def _examples(record: Record, pictures: Sequence[bytes]) -> str:
    text = "what the original (left) and the slim model (right) find on an unseen image"
    body = "".join(picture(jpeg, text) for jpeg in pictures)
    return section(f"{record['task'].capitalize()}, original on the left, slim on the right", body)


def _tree(record: Record) -> str:
    joins, names = record["search"].get("tree", []), [str(group["name"]) for group in record["groups"]]
    if not 2 <= len(names) <= MAX_LEAVES or len(joins) != len(names) - 1:
        return ""
    labels = dict(enumerate(names))
    rows = []
    for number, join in enumerate(joins):
        a, b = (labels[int(cluster)] for cluster in join[:2])
        labels[len(names) + number] = f"cluster {number + 1}"
        rows.append((f"cluster {number + 1}", a, b, f"{join[2]:.2f}"))
    under = table(("", "joins", "with", "distance"), rows, text=True)
    return section("Groups that are alike", figure(charts.tree_chart(names, joins), f"all {len(rows)} joins", under))


def _search(trials: Sequence[Record]) -> str:
    if not trials:
        return ""
    rows = [(t["number"] + 1, f"{t['distortion']:.4f}", f"{t['score']:.2%}", t["origin"]) for t in trials]
    under = table(("trial", "distortion", "score", "proposed by"), rows)
    return section("Search", figure(charts.search_chart(trials), f"all {len(rows)} trials", under))


def _finetuning(record: Record) -> str:
    history = record["finetune"].get("history", [])
    if not history:
        return ""
    rows = [(f"{row['epoch']:g}", _number(row["loss"]), _number(row["score"])) for row in history]
    under = table(("epoch", "loss", "score on images that decide"), rows)
    return section("Finetuning", figure(charts.finetuning_chart(history), f"all {len(rows)} candidates", under))


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
    under = table(("model", "median, ms", "interquartile range, ms", "runs"), rows)
    return section(f"Latency on {_device(record)}", figure(charts.latency_chart(samples), "figures", under))


def _kernels(times: Mapping[str, Mapping[str, float]]) -> str:
    if not times:
        return ""
    first = next(iter(times.values()))
    rows = [(op, *(f"{own.get(op, 0.0):.4f}" for own in times.values())) for op in first]
    under = table(("operator", *(f"{name}, ms" for name in times)), rows)
    note = "<p>With ONNX Runtime's profiler on, which takes time itself.</p>"
    return section("Time in each operator", note + figure(charts.kernel_chart(times), "figures", under))


def _outputs(record: Record) -> str:
    rows = [
        (one["name"], *(_number(one.get(key)) for key in ("distortion", "correlation", "largest_error")),
         ", ".join(f"{name} {_number(value)}" for name, value in one.get("figures", {}).items()))
        for one in record["outputs"]
    ]  # fmt: skip
    return section("Outputs", table(("", "distortion", "correlation", "largest error", "of its task"), rows))


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
