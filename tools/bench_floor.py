"""Measures the floor: does the emitted model hold it on images that decided nothing, and is it nearly the cheapest?

Usage:
    python tools/bench_floor.py FILE.onnx --data PATH [--max-drop 1.0] [--seeds 0,1,2] [--sweep 0.1,0.2,...]
        [--search sensitivity] [--minutes 10] [-o docs/benchmarks/floor.json]

A row is one seed: the share that was found, the loss of score on the images of the report, and the budgets that were
tried. "sweep" prunes at given shares with the same seed, without a floor: the cheapest that loses no more than asked is
what the found share is compared with. Rows that the output file holds are not repeated.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import bocr_onnx
from bocr_onnx.errors import BudgetError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--max-drop", type=float, default=1.0)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--sweep", default="")
    parser.add_argument("--search", default="sensitivity")
    parser.add_argument("--recover", default="sequential")
    parser.add_argument("--final-images", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/benchmarks/floor.json"))
    args = parser.parse_args()
    rows: dict[str, Any] = json.loads(args.output.read_text()) if args.output.exists() else {}
    end = time.monotonic() + 60 * args.minutes
    name = f"{args.file.stem} {args.max_drop:g}"
    budgets = [{"max_drop": args.max_drop}, *({"flops": float(s)} for s in args.sweep.split(",") if s)]
    for budget in budgets:
        for seed in map(int, args.seeds.split(",")):
            key = f"{name} {'floor' if 'max_drop' in budget else budget['flops']} seed {seed}"
            if key not in rows and time.monotonic() < end:
                rows[key] = run(args, budget, seed)
                args.output.write_text(json.dumps(rows, indent=1) + "\n")
            print(key, rows.get(key, "not run"), flush=True)


def run(args: argparse.Namespace, budget: dict[str, float], seed: int) -> dict[str, Any]:
    """Returns share, loss of score in points, and seconds."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            report = bocr_onnx.prune(
                args.file, data=str(args.data), seed=seed, search=args.search, history="none", round_to=1,
                recover=args.recover,
                final_images=args.final_images, output=f"{folder}/slim.onnx", **budget,
            )  # fmt: skip
        except BudgetError as error:
            return {"error": error.message, "seconds": round(time.monotonic() - start, 1)}
    return {
        "share": report.target["flops"],
        "drop": round(100 * ((report.baseline.accuracy or 0) - (report.result.accuracy or 0)), 3),
        "budgets": report.search.get("floor", {}).get("budgets", []),
        "seconds": round(time.monotonic() - start, 1),
    }


if __name__ == "__main__":
    main()
