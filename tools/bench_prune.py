"""Runs whole prunes over options and seeds, and keeps the score on unseen images and the seconds of every stage.

Usage:
    python tools/bench_prune.py FILE.onnx --data PATH [--preprocess FILE.toml] [--seeds 0,1,2] [--minutes 10]
        [-o docs/benchmarks/prune.json] OPTIONS ...

OPTIONS are those of `bocr_onnx.prune`, as JSON values after a name: ``flops=0.5,round_to=1,search='"sensitivity"'``
(a value that is not JSON is taken as text). A row is one run; rows that the output file holds are not repeated, and
`--minutes` begins no run later than that. Prints mean and standard error of what the file holds of these options.
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("options", nargs="+")
    parser.add_argument("--data", required=True)
    parser.add_argument("--preprocess", type=Path)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/benchmarks/prune.json"))
    args = parser.parse_args()
    rows: dict[str, Any] = json.loads(args.output.read_text()) if args.output.exists() else {}
    end = time.monotonic() + 60 * args.minutes
    for options in args.options:
        keys = [f"{args.file.stem} {options} seed {seed}" for seed in map(int, args.seeds.split(","))]
        for key in keys:
            if key not in rows and time.monotonic() < end:
                rows[key] = run(args, options, int(key.split()[-1]))
                args.output.write_text(json.dumps(rows, indent=1) + "\n")
        found = [rows[key] for key in keys if key in rows]
        if found:
            print(args.file.stem, options, summary(found), flush=True)


def run(args: argparse.Namespace, options: str, seed: int) -> dict[str, Any]:
    """Returns scores on unseen images, what was emitted, and seconds."""
    given = dict(map(_option, options.split(",")))
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = bocr_onnx.prune(
            args.file, data=args.data, preprocess=args.preprocess, seed=seed, history="none",
            output=f"{folder}/slim.onnx", **given,
        )  # fmt: skip
    return {
        "baseline": report.baseline.accuracy,
        "score": report.result.accuracy,
        "agreement": next(iter(report.outputs[0]["figures"].values()), None),
        "distortion": report.outputs[0]["distortion"],
        "recover": report.search["recover"],
        "seconds": round(time.monotonic() - start, 1),
        "stages": report.seconds,
    }


def summary(rows: list[dict[str, Any]]) -> str:
    """Returns the means of some runs."""
    score, baseline, agreement = (np.array([row[name] for row in rows]) for name in ("score", "baseline", "agreement"))
    error = score.std(ddof=1) / len(score) ** 0.5 if len(score) > 1 else float("nan")
    seconds = np.median([row["seconds"] for row in rows])
    return (
        f"{100 * score.mean():.2f} +- {100 * error:.2f} of {100 * baseline.mean():.2f}, "
        f"agreement {100 * agreement.mean():.1f}, {len(rows)} seeds, {seconds:.0f} s"
    )


def _option(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


if __name__ == "__main__":
    main()
