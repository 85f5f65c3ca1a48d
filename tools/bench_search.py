"""Runs search strategies over seeds and times a trial against bare inference; raw samples go to JSON.

Usage:
    python tools/bench_search.py MODEL.onnx --data PATH --flops 0.5 --strategies uniform,bocr --seeds 0,1,2
    python tools/bench_search.py MODEL.onnx --data PATH --flops 0.5 --trial-cost

The first form prunes once per strategy and seed and keeps every trial; the second evaluates one policy in turn
with the scorer of a trial and with nothing but ONNX Runtime on the same slim model and images.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from bocr_onnx import api
from bocr_onnx.cost import build_cost_model
from bocr_onnx.data import load_preprocessing, open_data, split
from bocr_onnx.evaluation import PolicyScorer, calibrate, open_session, predict
from bocr_onnx.graph import load
from bocr_onnx.groups import build_index
from bocr_onnx.search import Budget, Projection, build_space
from bocr_onnx.slimming import cut


def prune_once(args: argparse.Namespace, strategy: str, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        report = api.prune(
            args.model,
            flops=args.flops,
            data=args.data,
            preset=args.preset,
            strategy=strategy,
            trials=args.trials,
            seed=seed,
            round_to=args.round_to,
            freeze=args.freeze,
            n_score=args.images,
            output=Path(folder) / "slim.onnx",
            run_dir=Path(folder) / "run",
        )
        journal = Path(folder) / "run" / "journal.jsonl"
        lines = journal.read_text().splitlines()[1:] if journal.exists() else []
    trials = [t for t in map(json.loads, lines) if t["state"] != "proposed"]
    record = report.as_json()
    return {
        "strategy": strategy,
        "seed": seed,
        "accuracy": record["result"]["accuracy"],
        "baseline": record["baseline"]["accuracy"],
        "kept_macs": record["result"]["macs"] / record["baseline"]["macs"],
        "seconds": record["seconds"],
        "evaluation_s": sum(t["seconds"] for t in trials),
        "latency_ms": [record["baseline"]["latency_ms"], record["result"]["latency_ms"]],
        "proof": record["proof"],
        "widths": [g["n_kept"] for g in record["groups"]],
        "trials": trials,
    }


def trial_cost(args: argparse.Namespace) -> dict[str, Any]:
    graph = load(args.model)
    index = build_index(graph)
    cost = build_cost_model(graph, index)
    parts = split(open_data(args.data), seed=0, n_score=args.images, n_recovery=args.recovery_images)
    preset = load_preprocessing(args.preset)
    images, recovery = parts.score.load(preset), parts.recovery.load(preset)
    calibration = calibrate(graph, index, recovery)
    reference = predict(graph, graph.proto, images)
    scorer = PolicyScorer(calibration, images, np.argmax(reference, axis=1), reference)
    projection = Projection(build_space(index, grid=args.round_to), cost, Budget(flops=args.flops))
    widths = projection.execute(np.full(len(index.groups), 0.5))
    mask = calibration.mask(widths)
    session = open_session(cut(graph, index, mask))
    samples: dict[str, list[float]] = {"trial": [], "bare": []}
    for run in range(args.runs + 1):
        start = time.perf_counter()
        predict(graph, session, images)
        middle = time.perf_counter()
        scorer.score(widths, "oneshot")
        end = time.perf_counter()
        if run:  # the first one warms up
            samples["bare"].append(middle - start)
            samples["trial"].append(end - middle)
    ratios = [t / b for t, b in zip(samples["trial"], samples["bare"], strict=True)]
    print(
        f"one trial {np.median(samples['trial']):.2f} s, bare inference {np.median(samples['bare']):.2f} s, "
        f"ratio {np.median(ratios):.2f} (median of {args.runs})"
    )
    return {"unit": "s", "samples": samples, "median_ratio": float(np.median(ratios))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--preset", default="cifar10")
    parser.add_argument("--flops", type=float, default=0.5)
    parser.add_argument("--round-to", type=int, default=1)
    parser.add_argument("--freeze", nargs="*", default=())
    parser.add_argument("--strategies", default="uniform,bocr")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--images", type=int, default=2_000)
    parser.add_argument("--recovery-images", type=int, default=1_000)
    parser.add_argument("--trial-cost", action="store_true")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("-o", "--output", type=Path, default=Path("bench_search.json"))
    args = parser.parse_args()
    record: dict[str, Any] = {
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {name: version(name) for name in ("bocr-onnx", "onnxruntime", "torch", "botorch", "numpy")},
        "model": args.model.name,
        "flops": args.flops,
        "round_to": args.round_to,
    }
    if args.trial_cost:
        record["trial_cost"] = trial_cost(args)
    else:
        record["runs"] = []
        for seed in map(int, args.seeds.split(",")):
            for strategy in args.strategies.split(","):
                run = prune_once(args, strategy, seed)
                record["runs"].append(run)
                args.output.write_text(json.dumps(record, indent=1) + "\n")
                spent = f"search {run['seconds']['search']:.0f} s, evaluation {run['evaluation_s']:.0f} s of it"
                scored = f"{run['accuracy']:.4f} of {run['baseline']:.4f} at {run['kept_macs']:.4f}"
                print(f"{strategy}, seed {seed}: {scored}, {spent}", flush=True)
    args.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
