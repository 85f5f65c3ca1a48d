"""Times load, inspect, cut and proof of models, and writes the raw samples as JSON.

Usage: python tools/bench_graph.py MODEL.onnx [MODEL.onnx ...] [--runs 5] [-o bench_graph.json]
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from bocr_onnx.cost import build_cost_model
from bocr_onnx.evaluation import calibrate, run_once
from bocr_onnx.graph import load
from bocr_onnx.groups import build_index
from bocr_onnx.slimming import cut, prove


def measure(path: Path) -> dict[str, float]:
    seconds = {}
    start = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal start
        now = time.perf_counter()
        seconds[name], start = now - start, now

    graph = load(path)
    lap("load")
    index = build_index(graph)
    lap("groups")
    cost = build_cost_model(graph, index)
    cost.shares()
    lap("cost")
    mask = calibrate(graph, index, None).mask(np.maximum(1, cost.full // 2))
    slim = cut(graph, index, mask)
    lap("cut")
    prove(graph, index, mask, slim, run_once)
    lap("proof")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, default=Path("bench_graph.json"))
    args = parser.parse_args()
    samples: dict[str, list[dict[str, float]]] = {path.name: [] for path in args.models}
    for _ in range(args.runs):
        for path in args.models:
            samples[path.name].append(measure(path))
    for name, runs in samples.items():
        total = [sum(run.values()) for run in runs]
        parts = ", ".join(f"{k} {np.median([r[k] for r in runs]):.3f}" for k in runs[0])
        print(f"{name}: median {np.median(total):.3f} s ({parts})")
    record = {
        "machine": {"cpu": platform.processor() or platform.machine(), "python": platform.python_version()},
        "versions": {name: version(name) for name in ("bocr-onnx", "onnx", "onnxruntime", "numpy")},
        "unit": "s",
        "samples": samples,
    }
    args.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
