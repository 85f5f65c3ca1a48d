"""Tables and best-so-far curves of search benchmarks, of whatever is there, with the number of seeds of every figure.

Usage:
    python tools/plot_search.py docs/benchmarks/searches.jsonl -o docs/searches.md --figures docs/benchmarks

Reads what tools/bench_search.py wrote; writes a page of Markdown and a PNG for each setting, a panel per network.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt

Row = dict[str, Any]
Curve = np.ndarray[tuple[int], np.dtype[np.float64]]

MARKS = (10, 20, 40)
COUNTS = " / ".join(map(str, MARKS))
POINTS = 0.002
"""Score that may be missing where evaluations to what a run from scratch reaches are counted: 0.2 points."""

SHOWN_FROM = 4
"""Evaluation at which the axis of a score begins: the first ones are far below."""

EARLY = (5, 10, 15)
"""Evaluations after which a search that knows another budget is looked at."""

EARLY_COUNTS = " / ".join(map(str, EARLY))


PAGE = """# Searches, measured

Made by `tools/plot_search.py` of what `tools/bench_search.py` has measured, raw rows in
[benchmarks/searches.jsonl](benchmarks/searches.jsonl): 40 evaluations each (15 where another budget is known), 1,000
images to search by and 1,000 to
refit on, one thread. The column "seeds" says how many were run for a figure; with one or two, differences of half a
point say nothing. Seed 0 ran, for the most part, with fifteen other searches on 16 processors and one GPU, which
rebuilt blocks; the rest two to four at a time on two cores. So seconds tell orders of magnitude; each row names its
machine.

<!-- not run: takes hours, and needs the files that were measured -->
```bash
python tools/bench_search.py resnet20_bn.onnx --data cifar10 --flops 0.3 \\
    --strategies bocr,bo,local,sensitivity,random,uniform,amc --minutes 15
python tools/bench_search.py resnet20_bn.onnx --data cifar10 --flops 0.5 --published \\
    --freeze /conv1/Conv /layer2/layer2.0/conv2/Conv /layer3/layer3.0/conv2/Conv \\
    --strategies bocr-paper,bocr-paper:rollback=none,amc --minutes 15
python tools/bench_search.py cifar_mobilenet_v1.onnx --data cifar10 --flops 0.5 --published --trials-only \\
    --source resnet20_bn.onnx --source-freeze /conv1/Conv /layer2/layer2.0/conv2/Conv /layer3/layer3.0/conv2/Conv \\
    --strategies amc:transfer=plain,amc:transfer=augmented:assistant=on --minutes 15
python tools/bench_search.py resnet20_bn.onnx --data cifar10 --flops 0.3 --before 0.5 --trials 15 \\
    --strategies bocr --minutes 15
python tools/plot_search.py docs/benchmarks/searches.jsonl
```
"""

OWN = """## Our setting

All groups free, no labels, the recovery that a run emits (blocks rebuilt), top-1 on images that nothing else has
seen. The budget is hard enough for allocations to differ.

![least distortion so far, median and range over seeds](benchmarks/search_own.png)
"""

PUBLISHED = """## The published setting

Top-1 after the closed form alone is what is maximized and what is reported, channels are ranked by their weights,
nothing is known before; of the ResNets the insides of blocks are cut. `bocr-paper` is the published method,
`bocr-paper:rollback=none` the same in full dimension from the start.

![best top-1 so far, median and range over seeds](benchmarks/search_published.png)
"""

HISTORY = """## An agent with history

In the published setting: evaluations until an agent is within 0.2 points of the best top-1 that one from scratch finds
in 40, seed by seed. The source is a search from scratch of ResNet-20; what it takes stands beside. Agents without
transfer are controls.
"""

SECOND = """## Searches that know something

`bocr` after 40 evaluations of the same model at another budget, or of another model at this one, beside a fresh search:
means over seeds, and top-1 of what 15 evaluations emit and of what the fresh 40 do.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/searches.md"))
    parser.add_argument("--figures", type=Path, default=Path("docs/benchmarks"))
    args = parser.parse_args()
    rows = [json.loads(line) for file in args.files for line in file.read_text().splitlines()]
    plain = [row for row in rows if row["before"] is None and row["history"] is None]
    own = [row for row in plain if not row["published"] and not row["trials_only"]]
    published = [row for row in plain if row["published"] and not row["trials_only"]]
    parts = {
        PAGE: [],
        OWN: own_tables(own),
        PUBLISHED: published_tables(published),
        HISTORY: history_tables(rows) or ["Not measured yet.", ""],
        SECOND: known_table(rows) or ["Not measured yet.", ""],
    }
    args.output.write_text("\n".join(line for text, lines in parts.items() for line in (text, *lines)).rstrip() + "\n")
    draw(own, "least distortion so far", distortions, args.figures / "search_own.png")
    draw(published, "best top-1 so far, %", scores, args.figures / "search_published.png")


def objectives(row: Row) -> Curve:
    """Returns the best objective after each trial; what is not scored on all images counts as nothing."""
    return np.maximum.accumulate([-np.inf if o is None else o for o in row["objectives"]])


def distortions(row: Row) -> Curve:
    return np.exp(-objectives(row))


def scores(row: Row) -> Curve:
    """Returns the best score in % after each trial that was scored on all images."""
    pairs = zip(row["scores"], row["objectives"], strict=True)
    return 100 * np.maximum.accumulate([0.0 if o is None else s for s, o in pairs])


def by(rows: Iterable[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    found: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        found[tuple(row[name] for name in names)].append(row)
    return dict(sorted(found.items(), key=lambda item: str(item[0])))


def spread(values: Iterable[float], form: str = ".2f") -> str:
    """Returns the mean, and the range where they differ."""
    all_of = list(values)
    mean = f"{np.mean(all_of):{form}}"
    return mean if min(all_of) == max(all_of) else f"{mean} ({min(all_of):{form}} to {max(all_of):{form}})"


def own_tables(rows: list[Row]) -> list[str]:
    lines = []
    for (model, flops), runs in by(rows, "model", "flops").items():
        lines += [
            f"**{model}, {flops:g} of the MACs**, original {spread(100 * r['baseline'] for r in runs)} on "
            f"{runs[0]['n_unseen']:,} unseen images",
            "",
            f"| strategy | seeds | unseen, % | distortion after {COUNTS} trials | search, s | recovery, s |",
            "|---|---|---|---|---|---|",
        ]
        strategies = by(runs, "strategy")
        for (name,), own in sorted(strategies.items(), key=lambda item: -np.mean([r["unseen"] for r in item[1]])):
            tried = [r for r in own if r["objectives"]]
            curves = [distortions(r) for r in tried]
            marks = " / ".join(f"{np.mean([c[min(m, len(c)) - 1] for c in curves]):.3f}" for m in MARKS if curves)
            lines.append(
                f"| `{name}` | {len(own)} | {spread(100 * r['unseen'] for r in own)} | {marks if tried else '-'} | "
                f"{np.median([r['search_s'] for r in own]):.0f} | {np.median([r['recovery_s'] for r in own]):.0f} |"
            )
        lines.append("")
    return lines


def published_tables(rows: list[Row]) -> list[str]:
    lines = [
        f"| network, share of the MACs | strategy | seeds | best top-1 after {COUNTS} | unseen, % | s to propose, "
        "to evaluate |",
        "|---|---|---|---|---|---|",
    ]
    for (model, flops, name), own in by(rows, "model", "flops", "strategy").items():
        marks = " / ".join(f"{np.mean([scores(r)[min(m, len(r['scores'])) - 1] for r in own]):.2f}" for m in MARKS)
        times = [np.median([r[name] / len(r["scores"]) for r in own]) for name in ("proposal_s", "evaluation_s")]
        unseen = spread(100 * r["unseen"] for r in own)
        lines.append(
            f"| {model}, {flops:g} | `{name}` | {len(own)} | {marks} | {unseen} | {times[0]:.2f}, {times[1]:.2f} |"
        )
    return [*lines, ""] if rows else []


def history_tables(rows: list[Row]) -> list[str]:
    """Returns how many evaluations each agent needs to come within 0.2 points of what one from scratch reaches."""
    agents = [row for row in rows if row["strategy"].startswith("amc:") and row["published"]]
    alone_of = [row for row in rows if row["strategy"] == "amc" and row["published"] and row["history"] is None]
    scratch = {(r["model"], r["flops"], r["seed"]): r for r in alone_of}
    lines = [
        "| network, share of the MACs | agent | seeds | evaluations, each seed | from scratch | best top-1, % | "
        "from scratch | source, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    n = len(lines)
    for (model, flops, name), own in by(agents, "model", "flops", "strategy").items():
        pairs = [(r, scratch[key]) for r in own if (key := (model, flops, r["seed"])) in scratch]
        if not pairs:
            continue
        goals = [scores(s)[-1] - 100 * POINTS for _, s in pairs]
        needed, alone = (
            counted([evaluations(scores(pair[i]), goal) for pair, goal in zip(pairs, goals, strict=True)])
            for i in (0, 1)
        )
        best, best_alone = (spread((scores(pair[i])[-1] for pair in pairs), ".1f") for i in (0, 1))
        costs = [r["source_s"] for r, _ in pairs if "transfer" in name]
        cost = f"{np.median(costs):.0f}" if costs else "-"
        lines.append(
            f"| {model}, {flops:g} | `{name}` | {len(pairs)} | {needed} | {alone} | {best} | {best_alone} | {cost} |"
        )
    return [*lines, ""] if len(lines) > n else []


def known_table(rows: list[Row]) -> list[str]:
    """Returns searches that know another budget, or another model, beside fresh ones: early on, and what they emit."""
    own = [r for r in rows if r["strategy"] == "bocr" and not r["published"]]
    plain = [r for r in own if r["before"] is None and r["history"] is None and not r["trials_only"]]
    fresh = {(r["model"], r["flops"], r["seed"]): r for r in plain}
    knowing = [r for r in own if r["history"] is not None or (r["before"] is not None and not r["trials_only"])]
    lines = [
        f"| network | known, now | seeds | distortion after {EARLY_COUNTS} evaluations | fresh | "
        f"unseen after {EARLY[-1]}, % | fresh, after 40 |",
        "|---|---|---|---|---|---|---|",
    ]
    n = len(lines)
    for (model, flops, before, history), runs in by(knowing, "model", "flops", "before", "history").items():
        pairs = [(r, fresh[model, flops, r["seed"]]) for r in runs if (model, flops, r["seed"]) in fresh]
        if not pairs:
            continue
        sides = [[pair[i] for pair in pairs] for i in (0, 1)]
        cells = [early(map(distortions, side)) for side in sides]
        cells += [spread(100 * r["unseen"] for r in side) if history is None else "-" for side in sides]
        known = f"itself at {before:g}" if history is None else history
        lines.append(f"| {model} | {known}, {flops:g} | {len(pairs)} | {' | '.join(cells)} |")
    return [*lines, ""] if len(lines) > n else []


def early(curves: Iterable[Curve]) -> str:
    """Returns means of curves after a few evaluations."""
    found = list(curves)
    return " / ".join(f"{np.mean([c[min(m, len(c)) - 1] for c in found]):.3f}" for m in EARLY)


def counted(counts: Iterable[float]) -> str:
    """Returns the counts of several seeds."""
    return ", ".join("not reached" if np.isinf(one) else f"{one:.0f}" for one in counts)


def evaluations(curve: Curve, goal: float) -> float:
    """Returns after how many trials a curve is at a goal; infinity where it never is."""
    return float(np.argmax(curve >= goal)) + 1 if curve[-1] >= goal else np.inf


def draw(rows: list[Row], title: str, curve: Callable[[Row], Curve], path: Path) -> None:
    """Draws a panel per network: medians over seeds with the range."""
    models = by((r for r in rows if len(r["scores"]) > 1), "model")
    if not models:
        return
    figure, axes = plt.subplots(1, len(models), figsize=(4.2 * len(models), 3.8), layout="constrained", squeeze=False)
    names = sorted({row["strategy"] for row in rows})
    for panel, ((model,), runs) in zip(axes[0], models.items(), strict=True):
        early_on = []
        for (name,), own in by(runs, "strategy").items():
            n = min(len(r["scores"]) for r in own)
            curves = np.array([curve(r)[:n] for r in own])
            curves[~np.isfinite(curves)] = np.nan
            colour = f"C{names.index(name)}"
            median, seeds = np.median(curves, axis=0), "seed" if len(own) == 1 else "seeds"
            early_on.append(median[min(SHOWN_FROM, n) - 1])
            panel.plot(np.arange(1, n + 1), median, color=colour, label=f"{name}, {len(own)} {seeds}")
            panel.fill_between(np.arange(1, n + 1), curves.min(0), curves.max(0), color=colour, alpha=0.15, lw=0)
        panel.set(title=f"{Path(model).stem} at {runs[0]['flops']:g}", xlabel="evaluations", ylabel=title)
        if curve is distortions:
            panel.set_yscale("log")
        else:
            panel.set_ylim(bottom=np.nanmin(early_on))
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
