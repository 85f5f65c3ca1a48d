"""Measures latency as a budget: how well policies are predicted, and what a search for a latency gives.

Usage:
    python tools/bench_latency.py predict FILE.onnx ... [-o docs/benchmarks/latency.json]
    python tools/bench_latency.py search FILE.onnx --data DIR [--latency 0.6] [--flops 0.6,0.5] [--seeds 0,1,2]
        [--trials 40] [--minutes 10]

"predict" fits the latency of a model as `prune --latency` does, and measures ten further policies from another seed.
"search" prunes for a latency, and for shares of the MACs with the same seeds and trials, and measures all of them: what
one is worth at the latency of the other. A row is one run; rows that the output file holds are not repeated, and
`--minutes` begins no run later than that.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import bocr_onnx
from bocr_onnx.cost import prunable
from bocr_onnx.devices import Request, open_device
from bocr_onnx.pipeline import timing
from bocr_onnx.pipeline.model import read_model
from bocr_onnx.progress import Silent
from bocr_onnx.search import build_space

N_UNSEEN = 10
ERROR_SEED = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("predict", "search"))
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--preprocess", type=Path)
    parser.add_argument("--latency", type=_budget, default=0.6, help="share, or milliseconds such as 8ms")
    parser.add_argument("--flops", default="0.6,0.5")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--recover", default="sequential")
    parser.add_argument("--round-to", default="auto")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/benchmarks/latency.json"))
    args = parser.parse_args()
    rows: dict[str, Any] = json.loads(args.output.read_text()) if args.output.exists() else {}
    end = time.monotonic() + 60 * args.minutes
    for file in args.files:
        for key, run in _runs(args, file):
            if key not in rows and time.monotonic() < end:
                rows[key] = run()
                args.output.write_text(json.dumps(rows, indent=1) + "\n")
            print(key, rows.get(key, "not run"), flush=True)


def _budget(text: str) -> float | str:
    return text if text.endswith("ms") else float(text)


def _runs(args: argparse.Namespace, file: Path) -> list[tuple[str, Any]]:
    if args.what == "predict":
        return [(f"predict {file.stem} grid {args.round_to}", lambda: predict(file, int(args.round_to)))]
    budgets = [{"latency": args.latency}, *({"flops": float(share)} for share in args.flops.split(",") if share)]
    return [
        (f"search {file.stem} {name} {share} seed {seed}", lambda b=budget, s=seed: search(args, file, b, s))
        for seed in map(int, args.seeds.split(","))
        for budget in budgets
        for name, share in budget.items()
    ]


def predict(file: Path, grid: int) -> dict[str, Any]:
    """Returns relative errors on policies that the fit has not seen, and what they are made of."""
    model = prunable(read_model(str(file), {}))
    space, device, start = build_space(model.index, grid=grid), open_device("host"), time.monotonic()
    fitted = timing.timed(model, space, device, Request(), 0, Silent())
    seconds = time.monotonic() - start
    unseen = timing._drawn(space, ERROR_SEED)[:N_UNSEEN]
    times = timing.time_policies(model, [space.full, *unseen], device, Request(), 1.0, lambda *_: None)
    shares = np.array(times[1:]) / times[0]
    predicted = np.array([float(fitted.cost.latency_ms(w)[0]) for w in unseen]) / fitted.cost.latency_ms(space.full)[0]
    macs = fitted.cost.macs(np.array(unseen)) / fitted.cost.macs(space.full)
    found = fitted.cost.latency
    return {
        "errors": [round(float(e), 4) for e in predicted / shares - 1],
        "errors_of_macs": [round(float(e), 4) for e in macs / shares - 1],
        "block": found.block if found else None,
        "seconds": round(seconds, 1),
    }


def search(args: argparse.Namespace, file: Path, budget: dict[str, Any], seed: int) -> dict[str, Any]:
    """Returns the measured ratio of a run, its score on unseen images, and its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        report = bocr_onnx.prune(
            file, data=str(args.data), seed=seed, trials=args.trials, history="none", output=f"{folder}/slim.onnx",
            round_to=args.round_to, recover=args.recover, preprocess=args.preprocess, **budget,
        )  # fmt: skip
        seconds = time.monotonic() - start
        ratio = bocr_onnx.bench([file, f"{folder}/slim.onnx"], seconds=8).speedups[0]
    return {
        "latency": [round(1 / value, 4) for value in (ratio.value, ratio.high, ratio.low)],
        "score": report.result.accuracy,
        "baseline": report.baseline.accuracy,
        "macs": report.result.quantities["macs"] / report.baseline.quantities["macs"],
        "seconds": round(seconds, 1),
        "stages": report.seconds,
        "finalists": report.latency.get("finalists"),
    }


if __name__ == "__main__":
    main()
