r"""Trains one slim model in several ways over seeds; raw scores to JSON.

Usage:
    python tools/bench_finetune.py SLIM.onnx ORIGINAL.onnx --data PATH --preset cifar10 \
        --variants plain,normalize=true,normalize=true:average=0.99 --seeds 0,1,2 --epochs 2 -o A.json

A variant is `plain` or settings of `bocr_onnx.training.FinetuneSettings`, `:` between them. Runs that the output file
already holds are not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from bocr_onnx import api
from bocr_onnx.options import FinetuneSettings

_KINDS = {f.name: type(f.default) for f in fields(FinetuneSettings)}


def read_variant(text: str) -> dict[str, Any]:
    """Returns the settings that a variant names."""
    if text == "plain":
        return {}
    pairs = dict(part.split("=", 1) for part in text.split(":"))
    return {name: value == "true" if _KINDS[name] is bool else _KINDS[name](value) for name, value in pairs.items()}


def train_once(args: argparse.Namespace, variant: str, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        made = api.finetune(
            args.slim,
            args.original,
            args.data,
            preset=args.preset,
            preprocess=args.preprocess,
            output=Path(folder) / "trained.onnx",
            **{"epochs": args.epochs, "seed": seed} | read_variant(variant),
        )
    assert made is not None
    record = made.as_json()
    del record["output"], record["data"]
    return {"original": args.original.name, "slim": args.slim.name, "variant": variant, "seed": seed, **record}


def _key(run: dict[str, Any]) -> tuple[Any, ...]:
    return run["original"], run["slim"], run["variant"], run["seed"], run["finetune"]["epochs"]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slim", type=Path)
    parser.add_argument("original", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--preset")
    parser.add_argument("--preprocess")
    parser.add_argument("--variants", default="plain,normalize=true")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, default=Path("bench_finetune.json"))
    return parser.parse_args()


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    record: dict[str, Any] = {
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {name: version(name) for name in ("bocr-onnx", "onnxruntime", "torch", "numpy")},
        "runs": [],
    }
    if args.output.exists():
        record = json.loads(args.output.read_text())
    for seed in map(int, args.seeds.split(",")):
        for variant in args.variants.split(","):
            key = (args.original.name, args.slim.name, variant, seed, args.epochs)
            if key in {_key(run) for run in record["runs"]}:
                continue
            run = train_once(args, variant, seed)
            record["runs"].append(run)
            args.output.write_text(json.dumps(record) + "\n")
            print(
                f"{variant}, seed {seed}: {run['before']:.4f} -> {run['after']:.4f} of {run['teacher']:.4f} "
                f"in {run['seconds']:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
