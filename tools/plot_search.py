"""Draws best-so-far curves (median and interquartile range over seeds) and prints tables of search benchmarks.

Usage:
    python tools/plot_search.py docs/benchmarks/search_*.json --figures docs/benchmarks

Reads what tools/bench_search.py wrote; for each file a PNG and an SVG, and a Markdown table on stdout.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt

MARKS = (10, 20, 50, 100)


def best_so_far(run: dict[str, Any], n: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Returns the best objective on all images after each of n trials; what is not scored counts as nothing."""
    values = [t["objective"] if t["objective"] is not None else -np.inf for t in run["trials"]]
    curve = np.maximum.accumulate(values)
    return np.concatenate([curve, np.full(max(0, n - len(curve)), curve[-1])])[:n]


def by_strategy(record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for run in record["runs"]:
        found[run["strategy"]].append(run)
    return dict(sorted(found.items(), key=lambda item: -float(np.median([r["unseen"] for r in item[1]]))))


def quartiles(values: list[float], scale: float = 1.0, digits: int = 2) -> str:
    low, middle, high = (scale * np.percentile(values, q) for q in (25, 50, 75))
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def table(record: dict[str, Any]) -> list[str]:
    first = record["runs"][0]
    head = f"{record['model']}, MACs {record['flops']:g}, grid {record['round_to']}"
    frozen = f", frozen: {', '.join(record['freeze'])}" if record["freeze"] else ""
    lines = [
        f"### {head}{frozen}",
        "",
        f"Original on {first['n_unseen']} unseen images: "
        f"{quartiles([100 * r['baseline'] for r in record['runs']])}. "
        f"Median [quartiles] over seeds; objective: minus log of the output's distortion on the search images.",
        "",
        "| strategy | seeds | unseen images, % | best objective after 10 / 20 / 50 / 100 | search, s | "
        "s per evaluation | proposals | stopped early |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for strategy, runs in by_strategy(record).items():
        tried = [r for r in runs if r["trials"]]
        curves = np.array([best_so_far(r, MARKS[-1]) for r in tried])
        marks = " / ".join(f"{np.median(curves[:, m - 1]):.3f}" for m in MARKS) if tried else "-"
        each = [r["evaluation_s"] / len(r["trials"]) for r in tried]
        share = [r["proposal_s"] / max(r["search_s"] + r["calibration_s"] + r["finalists_s"], 1e-9) for r in tried]
        stopped = [np.mean([t["state"] == "stopped" for t in r["trials"]]) for r in tried]
        searched = f"{np.median([r['search_s'] for r in tried]):.0f}" if tried else "-"
        rest = f"{np.median(each):.2f} | {np.median(share):.1%} | {np.median(stopped):.0%}" if tried else "- | - | -"
        unseen = quartiles([r["unseen"] for r in runs], 100)
        lines.append(f"| {strategy} | {len(runs)} | {unseen} | {marks} | {searched} | {rest} |")
    return [*lines, ""]


def speedups(record: dict[str, Any], points: float = 0.002) -> list[str]:
    """Returns how many evaluations each agent needs to come within 0.2 points of what one from scratch reaches."""
    agents = {s: runs for s, runs in by_strategy(record).items() if s.split(":")[0] == "amc"}
    scratch = {r["seed"]: r for r in agents.get("amc", [])}
    if len(agents) < 2 or not scratch:
        return []
    lines = ["| agent | evaluations to the score from scratch - 0.2 points | times fewer |", "|---|---|---|"]
    for name, runs in agents.items():
        counts, ratios = [], []
        for run in (r for r in runs if r["seed"] in scratch):
            goal = best_scores(scratch[run["seed"]])[-1] - points
            alone, own = (int(np.argmax(c >= goal)) + 1 for c in (best_scores(scratch[run["seed"]]), best_scores(run)))
            reached = best_scores(run)[-1] >= goal
            counts.append(own if reached else np.inf)
            ratios.append(alone / own if reached else 0.0)
        lines.append(f"| {name} | {np.median(counts):.0f} | {np.median(ratios):.2f} |")
    return [*lines, ""]


def best_scores(run: dict[str, Any]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Returns the best score on all search images after each trial."""
    return np.maximum.accumulate([t["score"] if t["state"] == "complete" else 0.0 for t in run["trials"]])


def draw(record: dict[str, Any], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    lowest = []
    for strategy, runs in by_strategy(record).items():
        tried = [r for r in runs if len(r["trials"]) > 1]
        if not tried:
            continue
        curves = np.array([best_so_far(r, max(len(r["trials"]) for r in tried)) for r in tried])
        middle = np.median(curves, axis=0)
        x = np.arange(1, len(middle) + 1)
        (line,) = axes.plot(x, middle, label=strategy)
        axes.fill_between(x, *np.percentile(curves, (25, 75), axis=0), color=line.get_color(), alpha=0.15, lw=0)
        lowest.append(middle[min(9, len(middle) - 1)])
    finite = [v for v in lowest if np.isfinite(v)]
    if finite:
        axes.set_ylim(bottom=min(finite) - 0.1)
    axes.set(xlabel="evaluations", ylabel="best objective so far", title=f"{record['model']}, MACs {record['flops']:g}")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    for suffix in (".png", ".svg"):
        figure.savefig(path.with_suffix(suffix), dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--figures", type=Path)
    args = parser.parse_args()
    for file in args.files:
        record = json.loads(file.read_text())
        print("\n".join([*table(record), *speedups(record)]))
        if args.figures:
            draw(record, args.figures / file.name)


if __name__ == "__main__":
    main()
