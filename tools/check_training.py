"""Proves the torch side on files: answers, gradients, batches, weights written back; times a training step.

Usage:
    python tools/zoo.py export zoo
    python tools/check_training.py export zoo [--names resnet18,vit_b_16]     the same networks with an open batch
    python tools/check_training.py check FOLDER_OR_FILE ... [-o docs/benchmarks/training_zoo.json]
    python tools/check_training.py timing zoo [--rounds 9] [-o ...]           adds to the JSON that is there
    python tools/check_training.py table docs/benchmarks/training_zoo.json docs/training_zoo.md

Reference is ONNX Runtime on the same feed; differences are shares of the largest output. With a fixed batch,
a batch of two is only tried: such a file need not be able to.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import ModelProto
from zoo import CLASSIFIERS, DETECTORS, SEGMENTERS, _network

from bocr_onnx.errors import BocrError, TrainingError
from bocr_onnx.graph import ModelGraph, from_proto, load, random_feeds
from bocr_onnx.runtime import run_once
from bocr_onnx.training import OnnxModule, check_agreement, export
from bocr_onnx.training.interpreter import compute, relative_difference
from bocr_onnx.training.operators.registry import to_tensor

TOLERANCE = 1e-4
"""Tolerance between two runs of one sample and a run of two."""

TIMED = ("resnet18", "mobilenet_v2")
BATCH = 8
N_WARM = 2
Row = dict[str, Any]


def export_open(folder: Path, names: list[str]) -> None:
    """Writes `<name>.open.onnx`, with an open batch, for every network that is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = folder / f"{name}.open.onnx"
        if not path.exists():
            try:
                _export(name, path, dynamo=False, opset_version=17, input_names=["x"], dynamic_axes={"x": {0: "n"}})
            except Exception as error:  # whatever an exporter raises is a line of the log, not the end of the run
                path.unlink(missing_ok=True)
                print(f"{path.name}: not exported: {type(error).__name__}: {str(error).splitlines()[0]}")


def _export(name: str, path: Path, *, batch: int = 1, **options: Any) -> None:
    model, side = _network(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (torch.randn(batch, 3, side, side),), str(path), **options)


def check(path: Path) -> Row:
    """Returns the row of one file."""
    start = time.perf_counter()
    row: Row = {"file": path.name}
    try:
        graph = load(path)
        module = OnnxModule(graph)
        row |= {"status": "ok", "open": graph.batch_is_symbolic(), "half": _is_half(graph)}
        row |= {"parameters": len(list(module.parameters()))}
        if row["parameters"]:
            _prove(row, module, graph)
        else:
            row |= {"status": "refused", "reason": "no floating-point weights to train"}
    except TrainingError as error:
        status = "refused" if "must be an operator that can be trained" in str(error) else "failed"
        row |= {"status": status, "reason": str(error).splitlines()[0].split(": ", 1)[-1]}
    except (BocrError, RuntimeError, ValueError) as error:
        row |= {"status": "failed", "reason": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    row["seconds"] = round(time.perf_counter() - start, 2)
    return row


def _prove(row: Row, module: OnnxModule, graph: ModelGraph) -> None:
    row["forward"] = check_agreement(module, graph, lambda feeds: run_once(graph.proto, feeds))
    row["batch_of_2"] = _batch_difference(module, graph)
    row["unchanged_is_identical"] = export(module, graph).SerializeToString() == graph.proto.SerializeToString()
    row |= _gradients(OnnxModule(graph), graph)
    _perturb(module)
    proto = export(module, graph)
    row["written_back"] = check_agreement(module, graph, lambda feeds: run_once(proto, feeds))
    row["written_is_equal"] = _holds_the_same(module, proto)
    broken = [
        name
        for name, fine in (
            ("weights written untouched are other bytes", row["unchanged_is_identical"]),
            ("weights read back are other numbers", row["written_is_equal"]),
            ("gradients are not finite", row["gradients_finite"]),
            ("no parameter has a gradient", row["with_gradient"]),
            ("two at once are not two runs of one", not row["open"] or (row["batch_of_2"] or 0.0) <= _tolerance(row)),
        )
        if not fine
    ]
    if broken:
        row |= {"status": "failed", "reason": "; ".join(broken)}


def _tolerance(row: Row) -> float:
    return 0.01 if row["half"] else TOLERANCE


def _is_half(graph: ModelGraph) -> bool:
    return any(a.dtype == np.float16 for a in graph.constants.values())


def _batch_difference(module: OnnxModule, graph: ModelGraph) -> float | None:
    """Returns the difference of a run of two from two runs of one; None where a fixed batch does not let it."""
    feeds = [random_feeds(graph, seed=seed) for seed in (0, 1)]
    singles = [[feed[name] for name in graph.inputs] for feed in feeds]
    if any(not a.ndim or a.shape[0] != 1 for single in singles for a in single):
        return None
    try:
        both = compute(module, [np.concatenate(pair) for pair in zip(*singles, strict=True)])
    except TrainingError:
        if graph.batch_is_symbolic():
            raise
        return None
    alone = [np.concatenate(pair) for pair in zip(*(compute(module, s) for s in singles), strict=True)]
    if any(a.shape != b.shape for a, b in zip(both, alone, strict=True)):
        return None
    return max(relative_difference(a, b) for a, b in zip(both, alone, strict=True))


def _gradients(module: OnnxModule, graph: ModelGraph) -> Row:
    """Returns what a backward pass under training gives: whether finite, and how many parameters got something."""
    feeds = random_feeds(graph, batch=2)
    outputs = module.train()(*(to_tensor(feeds[name]) for name in graph.inputs))
    torch.stack([y.square().mean() for y in outputs if y.requires_grad]).sum().backward()
    gradients = [p.grad for p in module.parameters()]
    return {
        "gradients_finite": all(bool(torch.isfinite(g).all()) for g in gradients if g is not None),
        "with_gradient": sum(g is not None for g in gradients),
        "with_gradient_not_zero": sum(g is not None and bool(g.any()) for g in gradients),
    }


def _perturb(module: OnnxModule) -> None:
    """Changes every weight a little, and lets variances grow only; weights that are all equal are drawn anew."""
    torch.manual_seed(0)
    trained = {id(p) for p in module.parameters()}
    with torch.no_grad():
        for _, tensor in module.named_initializers():
            if id(tensor) not in trained:
                tensor.mul_(1 + 0.05 * torch.rand_like(tensor))
            elif tensor.dim() > 1 and tensor.amin() == tensor.amax():
                tensor.normal_(0.0, float(np.sqrt(2 * len(tensor) / tensor.numel())))
            else:
                tensor.mul_(1 + 0.05 * torch.rand_like(tensor)).add_(1e-3 * torch.randn_like(tensor))


def _holds_the_same(module: OnnxModule, proto: ModelProto) -> bool:
    """Returns whether a file holds the module's tensors bit by bit, rounded where it stores half types.

    They are met in order: a file is written without the nodes whose results were constants.
    """
    graph = from_proto(proto)
    held = list(OnnxModule(graph).operand_tensors())
    own = [tensor for _, tensor in module.operand_tensors()]
    return len(held) == len(own) and all(
        torch.equal(_as_stored(a, graph, at), b) for a, (at, b) in zip(own, held, strict=True)
    )


def _as_stored(tensor: torch.Tensor, graph: ModelGraph, at: tuple[int, int]) -> torch.Tensor:
    array = tensor.detach().numpy()
    return to_tensor(array.astype(graph.constants[graph.nodes[at[0]].input(at[1])].dtype))


def time_steps(folder: Path, rounds: int) -> Row:
    """Returns interleaved step times in seconds: the torch module, its file with norms, its file as exported."""
    torch.set_num_threads(1)
    found: Row = {}
    for name in TIMED:
        modules = {"torch": _network(name)[0].train()}
        for kind, optimize in (("norms", False), ("folded", True)):
            path = folder / f"{name}.{kind}{BATCH}.onnx"
            if not path.exists():
                options = {"dynamo": True, "optimize": optimize, "external_data": False, "verbose": False}
                _export(name, path, batch=BATCH, **options)
            modules[kind] = OnnxModule(load(path)).train()
        x = torch.randn(BATCH, 3, 224, 224)
        samples: dict[str, list[float]] = {kind: [] for kind in modules}
        for i in range(N_WARM + rounds):
            for kind in list(modules)[:: 1 if i % 2 else -1]:
                seconds = _step(modules[kind], x)
                if i >= N_WARM:
                    samples[kind].append(seconds)
        ratios = {k: _median_ratio(samples[k], samples["torch"]) for k in ("norms", "folded")}
        found[name] = {"samples_s": samples, "median_ratio": ratios}
        print(name, ratios, flush=True)
    return found


def _step(module: torch.nn.Module, x: torch.Tensor) -> float:
    start = time.perf_counter()
    module.zero_grad()
    made = module(x)
    (made[0] if isinstance(made, tuple) else made).square().mean().backward()
    return time.perf_counter() - start


def _median_ratio(a: list[float], b: list[float]) -> float:
    return float(np.median(np.array(a) / np.array(b)))


def table(record: Row) -> str:
    """Returns the page."""
    rows = record["rows"]
    counts = Counter(row["status"] for row in rows)
    good = [row for row in rows if row["status"] == "ok"]
    full = [row for row in good if not row["half"]]
    together = [row["batch_of_2"] for row in full if row["batch_of_2"] is not None]
    n_open = sum(row["open"] for row in good)
    return "\n".join(
        [
            "# The torch side over the zoo",
            "",
            "Every file is run as a torch module and by ONNX Runtime on the same feed. *Forward* is the largest",
            "difference of the outputs, as a share of the largest; *two* that of a batch of two from two runs of one",
            "(empty: the file has a fixed batch and cannot); *gradients* how many parameters a backward pass under",
            "training reaches with a finite gradient; *written* the difference after all weights were changed, written",
            "back and run in ONNX Runtime. Weights exported untouched are the same bytes, changed ones the same",
            "numbers, or the file counts as failed. All weights of the `light_` files are constants and their answers",
            "uniform, so that *forward* says nothing: for *written*, such weights are drawn anew.",
            "",
            "Made by `python tools/zoo.py export zoo && python tools/check_training.py export zoo`, then",
            "`python tools/check_training.py check zoo other.onnx -o docs/benchmarks/training_zoo.json`,",
            "`... timing zoo -o docs/benchmarks/training_zoo.json` and",
            "`... table docs/benchmarks/training_zoo.json docs/training_zoo.md`.",
            "",
            f"{len(rows)} files: " + ", ".join(f"{n} {status}" for status, n in sorted(counts.items())) + ". "
            f"Among those that are ok, {n_open} have an open batch, {len(good) - len(full)} hold half types",
            "(compared within 0.01: torch computes them in float32). Largest differences of the others: "
            f"forward {_worst(full, 'forward')}, two {max(together, default=0.0):.1e} "
            f"(over {len(together)} files), written {_worst(full, 'written_back')}.",
            "",
            *_not_good(rows),
            *_timing(record.get("timing", {})),
            "## Files",
            "",
            "| file | | batch | forward | two | gradients | written |",
            "|---|---|---|---|---|---|---|",
            *(_line(row) for row in rows),
            "",
        ]
    )


def _worst(rows: list[Row], key: str) -> str:
    return f"{max((row[key] for row in rows), default=0.0):.1e}"


def _not_good(rows: list[Row]) -> list[str]:
    lines = []
    for status in ("refused", "failed"):
        found = [row for row in rows if row["status"] == status]
        if found:
            lines += [f"## {status.capitalize()}", "", *(f"- {row['file']}: {row['reason']}" for row in found), ""]
    return lines


def _timing(timing: Row) -> list[str]:
    if not timing:
        return []
    lines = [
        "## Time of a step",
        "",
        f"Forward and backward, batch {BATCH}, 224 x 224, one thread, interleaved with the original torch module;",
        "the median of the ratios of the rounds. *With norms* computes what the torch module computes; *as exported*",
        "has BatchNormalization folded into the convolutions.",
        "",
        "| network | rounds | torch, median s | with norms | as exported |",
        "|---|---|---|---|---|",
    ]
    for name, found in timing.items():
        own, ratio = found["samples_s"]["torch"], found["median_ratio"]
        lines.append(f"| {name} | {len(own)} | {np.median(own):.2f} | {ratio['norms']:.3f} | {ratio['folded']:.3f} |")
    return [*lines, ""]


def _line(row: Row) -> str:
    name = row["file"].removesuffix(".onnx")
    if "forward" not in row:
        return f"| {name} | {row['status']} | | | | | |"
    two = "" if row.get("batch_of_2") is None else f"{row['batch_of_2']:.0e}"
    written = f"{row['written_back']:.0e}" if "written_back" in row else ""
    reached = f"{row.get('with_gradient', 0)} of {row['parameters']}"
    batch = "open" if row["open"] else "fixed"
    return f"| {name} | {row['status']} | {batch} | {row['forward']:.0e} | {two} | {reached} | {written} |"


def _write(path: Path | None, **found: Any) -> None:
    """Writes the record; what an earlier command measured stays."""
    if path is None:
        return
    packages = ("bocr-onnx", "onnx", "onnxruntime", "torch", "torchvision", "numpy")
    record = json.loads(path.read_text()) if path.exists() else {}
    record |= {
        "machine": {"cpu": platform.processor() or platform.machine(), "python": platform.python_version()},
        "versions": {n: version(n) for n in packages},
    }
    path.write_text(json.dumps(record | found, indent=1) + "\n")


def main() -> None:
    """Runs a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    exporting = commands.add_parser("export")
    exporting.add_argument("folder", type=Path)
    exporting.add_argument("--names", default=",".join((*CLASSIFIERS, *SEGMENTERS, *DETECTORS)))
    checking = commands.add_parser("check")
    checking.add_argument("paths", nargs="+", type=Path)
    checking.add_argument("-o", "--output", type=Path)
    timing = commands.add_parser("timing")
    timing.add_argument("folder", type=Path)
    timing.add_argument("--rounds", type=int, default=9)
    timing.add_argument("-o", "--output", type=Path)
    writing = commands.add_parser("table")
    writing.add_argument("record", type=Path)
    writing.add_argument("page", type=Path)
    args = parser.parse_args()
    if args.command == "export":
        export_open(args.folder, args.names.split(","))
    elif args.command == "check":
        rows = []
        for path in [f for p in args.paths for f in (sorted(p.glob("*.onnx")) if p.is_dir() else [p])]:
            rows.append(check(path))
            print(_line(rows[-1]), rows[-1]["seconds"], rows[-1].get("reason", ""), flush=True)
        _write(args.output, rows=rows)
    elif args.command == "timing":
        _write(args.output, timing=time_steps(args.folder, args.rounds))
    else:
        args.page.write_text(table(json.loads(args.record.read_text())))


if __name__ == "__main__":
    main()
