"""Exports torchvision's networks by every exporter, cuts all of them and any other file, and writes the table.

Usage:
    python tools/zoo.py export FOLDER [--names resnet18,vit_b_16] [--exporters torchscript13,torchscript17,dynamo]
    python tools/zoo.py measure FOLDER_OR_FILE ... [-o docs/benchmarks/zoo.json] [--table docs/zoo.md]

Weights are random: what can be cut does not depend on them. Every file is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
import warnings
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

CLASSIFIERS = (
    "alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3 maxvit_t mnasnet1_0 "
    "mobilenet_v2 mobilenet_v3_large mobilenet_v3_small regnet_x_400mf regnet_y_400mf resnet18 resnet50 "
    "resnext50_32x4d shufflenet_v2_x1_0 squeezenet1_1 swin_t swin_v2_t vgg11_bn vit_b_16 wide_resnet50_2"
).split()
SEGMENTERS = "deeplabv3_mobilenet_v3_large deeplabv3_resnet50 fcn_resnet50 lraspp_mobilenet_v3_large".split()
DETECTORS = ["ssdlite320_mobilenet_v3_large"]
EXPORTERS = ("torchscript13", "torchscript17", "dynamo")
SEEDS = (0, 1)
TIME_LIMIT_S = 300


def export(folder: Path, names: list[str], exporters: list[str]) -> None:
    """Writes `<name>.<exporter>.onnx` for every pair that is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        for exporter in exporters:
            path = folder / f"{name}.{exporter}.onnx"
            if path.exists():
                continue
            start = time.perf_counter()
            try:
                _export_one(name, exporter, path)
            except Exception as error:  # whatever an exporter raises is a line of the log, not the end of the run
                path.unlink(missing_ok=True)
                print(f"{path.name}: not exported: {type(error).__name__}: {str(error).splitlines()[0]}")
                continue
            print(f"{path.name}: {time.perf_counter() - start:.1f} s")


def _export_one(name: str, exporter: str, path: Path) -> None:
    import torch

    model, side = _network(name)
    x = torch.randn(1, 3, side, side)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter == "dynamo":
            torch.onnx.export(model, (x,), path, dynamo=True, external_data=False, verbose=False)
        else:
            opset = int(exporter.removeprefix("torchscript"))
            torch.onnx.export(model, (x,), str(path), dynamo=False, opset_version=opset)


def _network(name: str) -> tuple[Any, int]:
    """Returns a network in evaluation mode and the side of its input."""
    import torch
    from torchvision.models import get_model

    class First(torch.nn.Module):
        """Returns the map of a segmenter's dictionary, and the tensors of one image of a detector's list."""

        def __init__(self, inner: torch.nn.Module, *, detects: bool) -> None:
            super().__init__()
            self.inner, self.detects = inner, detects

        def forward(self, x: Any) -> Any:
            if self.detects:
                found = self.inner([x[0]])[0]
                return found["boxes"], found["scores"], found["labels"]
            return self.inner(x)["out"]

    torch.manual_seed(0)
    if name in DETECTORS or name in SEGMENTERS:
        inner = get_model(name, weights=None, weights_backbone=None).eval()
        side = 320 if name in DETECTORS else 224
        _settle_statistics(inner.backbone, side)
        return First(inner, detects=name in DETECTORS).eval(), side
    options = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    model, side = get_model(name, weights=None, **options).eval(), 299 if name == "inception_v3" else 224
    _settle_statistics(model, side)
    return model, side


def _settle_statistics(model: Any, side: int) -> None:
    """Sets the statistics of BatchNormalization to those of random images: without, deep activations vanish."""
    import torch

    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = None
    with torch.no_grad():
        for _ in range(2):
            model(torch.randn(4, 3, side, side))
    for norm in norms:
        norm.eval()


def measure_one(path: Path) -> dict[str, Any]:
    """Returns the row of one file: cut at half of every group and by random masks, every cut proved."""
    from bocr_onnx.cost import build_cost_model
    from bocr_onnx.errors import BocrError
    from bocr_onnx.groups import build_index
    from bocr_onnx.pipeline.model import read_model
    from bocr_onnx.runtime import run_once
    from bocr_onnx.slimming import cut, prove_cut

    seconds: dict[str, float] = {}
    row: dict[str, Any] = {"file": path.name, "seconds": seconds}
    start = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal start
        now = time.perf_counter()
        seconds[name], start = now - start, now

    try:
        graph = read_model(path)
        lap("load")
        index = build_index(graph)
        lap("groups")
        cost = build_cost_model(index)
        lap("cost")
        total = max(cost.macs(cost.full)[0], 1.0)
        shares = [sum(cost.node_macs.get(i, 0.0) for i in r.nodes) / total for r in index.refusals]
        row |= {
            "status": "cut" if index.groups else "refused",
            "nodes": len(graph.nodes),
            "macs": round(float(total)),
            "groups": sorted(g.n_channels for g in index.groups),
            "prunable_share": cost.prunable_share(),
            "kept_at_half": float(cost.macs(np.maximum(1, cost.full // 2))[0] / total),
            "refusals": [
                {"op": op, "reason": reason, "n": n, "macs_share": share}
                for (op, reason), (n, share) in _merged(index.refusals, shares).items()
            ],
            "proofs": [],
        }
        for seed in SEEDS if index.groups else ():
            start = time.perf_counter()
            mask = _random_mask(index, seed, half=seed == SEEDS[0])
            slim = cut(index, mask)
            lap("cut")
            proof = prove_cut(index, mask, slim, run_once, seed=seed)
            lap("proof")
            row["proofs"].append({"max_rel_diff": proof.max_rel_diff, "tolerance": proof.tolerance})
    except BocrError as error:
        row |= {"status": "refused", "reason": error.message.replace(str(path), path.name)}
    return row


def _random_mask(index: Any, seed: int, *, half: bool) -> Any:
    rng = np.random.default_rng(seed)
    mask = np.zeros(index.n_channels, dtype=bool)
    for group in index.groups:
        n = group.n_channels
        kept = max(1, n // 2) if half else int(rng.integers(1, n + 1))
        mask[group.start + rng.choice(n, kept, replace=False)] = True
    return mask


def _merged(refusals: Any, shares: list[float]) -> dict[tuple[str, str], tuple[int, float]]:
    """Returns refusals by operator and reason: how many, and the largest share of MACs one of them touches."""
    found: dict[tuple[str, str], tuple[int, float]] = {}
    for refusal, share in zip(refusals, shares, strict=True):
        reason = refusal.reason.split("'")[0].strip() if "'" in refusal.reason else refusal.reason
        n, most = found.get((refusal.op, reason), (0, 0.0))
        found[(refusal.op, reason)] = (n + 1, max(most, share))
    return found


def measure(paths: list[Path]) -> list[dict[str, Any]]:
    """Returns the rows of all files."""
    rows = []
    for path in paths:
        command = [sys.executable, __file__, "one", str(path)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False)
            lines = done.stdout.strip().splitlines()
            row = json.loads(lines[-1]) if done.returncode == 0 and lines else None
            row = row or {"file": path.name, "status": "crashed", "reason": done.stderr.strip()[-300:]}
        except subprocess.TimeoutExpired:
            row = {"file": path.name, "status": "crashed", "reason": f"took more than {TIME_LIMIT_S} s"}
        rows.append(row)
        print(_line(row), flush=True)
    return rows


def _line(row: dict[str, Any]) -> str:
    if "prunable_share" not in row:
        return f"| {row['file']} | {row['status']} | | | | | {row.get('reason', '')} |"
    proof = max((p["max_rel_diff"] for p in row["proofs"]), default=0.0)
    reasons = "; ".join(
        f"{r['n']} x {r['op']}: {r['reason']}"
        for r in row["refusals"]
        if not r["reason"].startswith("they are the model")
    )
    own = sum(row["seconds"].get(k, 0.0) for k in ("groups", "cost", "cut"))
    return (
        f"| {row['file'].removesuffix('.onnx')} | {row['status']} | {row['prunable_share']:.3f} | "
        f"{row['kept_at_half']:.3f} | {own:.2f} | {proof:.0e} | {row.get('reason') or reasons} |"
    )


def _table(rows: list[dict[str, Any]]) -> str:
    counts = Counter(row["status"] for row in rows)
    return "\n".join(
        [
            "# The zoo: what is cut, and what is refused and why",
            "",
            "Every file is cut at half of every group and by a random mask, and both cuts are proved against the",
            "masked original. *Prunable* is the share of the MACs that any group controls, *kept* the share that is",
            "left when every group keeps half. Seconds are those of groups, cost and cut. Model outputs, whose",
            "channels are never cut, are left out of the reasons.",
            "",
            "Made by `python tools/zoo.py export zoo && python tools/zoo.py measure zoo other.onnx "
            "-o docs/benchmarks/zoo.json --table docs/zoo.md`;",
            f"{len(rows)} files: " + ", ".join(f"{n} {status}" for status, n in sorted(counts.items())) + ".",
            "",
            "| file | | prunable | kept | s | proof | refused, and why |",
            "|---|---|---|---|---|---|---|",
            *(_line(row) for row in rows),
            "",
            *_differences(rows),
            "",
        ]
    )


def _differences(rows: list[dict[str, Any]]) -> list[str]:
    """Returns in which networks the exporters' files have other groups."""
    found: dict[str, dict[tuple[int, ...], list[str]]] = {}
    for row in rows:
        name, _, exporter = row["file"].removesuffix(".onnx").partition(".")
        if exporter in EXPORTERS and "groups" in row:
            found.setdefault(name, {}).setdefault(tuple(row["groups"]), []).append(exporter)
    same = sum(len(kinds) == 1 for kinds in found.values())
    lines = [f"All exporters give the same groups for {same} of {len(found)} networks.", ""]
    for name, kinds in found.items():
        if len(kinds) > 1:
            told = "; ".join(f"{', '.join(e)}: {len(g)} groups of {sum(g)} channels" for g, e in kinds.items())
            lines.append(f"- {name}: {told}")
    return lines


def main() -> None:
    """Runs a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    exporting = commands.add_parser("export")
    exporting.add_argument("folder", type=Path)
    exporting.add_argument("--names", default=",".join((*CLASSIFIERS, *SEGMENTERS, *DETECTORS)))
    exporting.add_argument("--exporters", default=",".join(EXPORTERS))
    measuring = commands.add_parser("measure")
    measuring.add_argument("paths", nargs="+", type=Path)
    measuring.add_argument("-o", "--output", type=Path)
    measuring.add_argument("--table", type=Path)
    one = commands.add_parser("one")
    one.add_argument("path", type=Path)
    args = parser.parse_args()
    if args.command == "export":
        export(args.folder, args.names.split(","), args.exporters.split(","))
    elif args.command == "one":
        print(json.dumps(measure_one(args.path)))
    else:
        paths = [f for p in args.paths for f in (sorted(p.glob("*.onnx")) if p.is_dir() else [p])]
        rows = measure(paths)
        if args.table:
            args.table.write_text(_table(rows))
        if args.output:
            packages = ("bocr-onnx", "onnx", "onnxruntime", "torch", "torchvision", "numpy")
            machine = {"cpu": platform.processor() or platform.machine(), "python": platform.python_version()}
            record = {"machine": machine, "versions": {n: version(n) for n in packages}, "rows": rows}
            args.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
