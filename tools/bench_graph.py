"""Times load, groups, cost, cut and proof of models, and writes the raw samples as JSON.

Usage: python tools/bench_graph.py [MODEL.onnx ...] [--chains 500,1000,2000] [--runs 5] [-o bench_graph.json]

A chain is a generated residual network of so many nodes: the time must grow with their number, not faster.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

from bocr_onnx.cost import build_cost_model
from bocr_onnx.graph import from_proto, load
from bocr_onnx.groups import GroupIndex, build_index
from bocr_onnx.runtime import run_once
from bocr_onnx.slimming import Mask, cut, prove_structure

FLOAT = TensorProto.FLOAT


def chain(n_nodes: int) -> ModelProto:
    """Returns a residual network: Conv, Relu, Conv, Add, again and again, on one stream of 16 channels."""
    weights: dict[str, tuple[int, ...]] = {"first": (16, 3, 1, 1), "last": (10, 16)}
    nodes = [make_node("Conv", ["x", "first"], ["s0"], name="stem")]
    for i in range((n_nodes - 4) // 4):
        weights |= {f"a{i}": (24, 16, 1, 1), f"b{i}": (16, 24, 1, 1)}
        nodes += [
            make_node("Conv", [f"s{i}", f"a{i}"], [f"p{i}"], name=f"expand{i}"),
            make_node("Relu", [f"p{i}"], [f"r{i}"], name=f"relu{i}"),
            make_node("Conv", [f"r{i}", f"b{i}"], [f"q{i}"], name=f"project{i}"),
            make_node("Add", [f"s{i}", f"q{i}"], [f"s{i + 1}"], name=f"add{i}"),
        ]
    stream = nodes[-1].output[0]
    nodes += [
        make_node("GlobalAveragePool", [stream], ["pooled"], name="pool"),
        make_node("Flatten", ["pooled"], ["flat"], name="flatten"),
        make_node("Gemm", ["flat", "last"], ["y"], name="classifier", transB=1),
    ]
    rng = np.random.default_rng(0)
    drawn = {name: (rng.standard_normal(shape) * 0.02).astype(np.float32) for name, shape in weights.items()}
    graph = make_graph(
        nodes,
        "chain",
        [make_tensor_value_info("x", FLOAT, ["N", 3, 8, 8])],
        [make_tensor_value_info("y", FLOAT, ["N", 10])],
        [numpy_helper.from_array(array, name) for name, array in drawn.items()],
    )
    return make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=8)


def measure(model: Path | ModelProto) -> dict[str, float]:
    seconds = {}
    start = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal start
        now = time.perf_counter()
        seconds[name], start = now - start, now

    graph = load(model) if isinstance(model, Path) else from_proto(model)
    lap("load")
    index = build_index(graph)
    lap("groups")
    cost = build_cost_model(index)
    cost.shares()
    lap("cost")
    mask = half_mask(index)
    slim = cut(index, mask)
    lap("cut")
    prove_structure(index, mask, slim, run_once)
    lap("proof")
    return seconds


def half_mask(index: GroupIndex) -> Mask:
    """Returns the mask that keeps every other channel of every group."""
    mask = np.zeros(index.n_channels, dtype=bool)
    for group in index.groups:
        mask[group.span][::2] = True
    return mask


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--chains", default="", help="Node counts of generated chains, with commas.")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, default=Path("bench_graph.json"))
    args = parser.parse_args()
    models: dict[str, Path | ModelProto] = {path.name: path for path in args.models}
    models |= {f"chain of {n} nodes": chain(int(n)) for n in args.chains.split(",") if n}
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in models}
    for _ in range(args.runs):
        for name, model in models.items():
            samples[name].append(measure(model))
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
