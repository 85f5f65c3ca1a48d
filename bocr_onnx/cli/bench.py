"""bocr-onnx bench."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from bocr_onnx.cli.command import command
from bocr_onnx.cli.output import print_json, print_table
from bocr_onnx.options import BenchOptions

if TYPE_CHECKING:
    from bocr_onnx.api import Benchmark

MAX_KERNELS = 15


@command(BenchOptions)
def bench(options: BenchOptions, as_json: bool) -> None:
    """Measure how fast models are on a device, in turn, and how many times faster than the first."""
    from bocr_onnx import api

    found = api.bench.run(options)
    if as_json:
        print_json(found.as_json())
        return
    _print_machine(found)
    print_table("", HEAD, _rows(found))
    for line in _speedup_lines(found):
        print(line)
    if options.profile:
        names = [Path(model).name for model in found.models]
        print_table("ms in each operator of the optimized graph", ("operator", *names), _kernel_rows(found))
    if found.agreements:
        print_table(*_agreement_table(found))
    for note in (*found.measured.notes, *_differences(found)):
        print(f"note: {note}", file=sys.stderr)


HEAD = ("model", "median ms", "IQR", "wall", "CPU", "first run", "init", "peak memory", "file")


def _print_machine(found: Benchmark) -> None:
    measured, one = found.measured, found.measured.latencies[0]
    machine = measured.machine
    flags = f" ({' '.join(machine.flags)})" if machine.flags else ""
    print(f"{measured.device}: {machine.cpu or machine.architecture}{flags}, {machine.cores} cores, {machine.system}")
    threads = f"{one.threads} thread{'' if one.threads == 1 else 's'}" if one.threads else "one thread per core"
    clock = "CPU time of the thread" if one.clock == "cpu" else "wall time"
    n = len(one.samples_ms)
    print(f"ONNX Runtime {machine.onnxruntime}, {threads}, {n} runs in {one.n_rounds} rounds, quoted by {clock}")


def _rows(found: Benchmark) -> list[tuple[str, ...]]:
    rows = []
    for model, size, one in zip(found.models, found.sizes_bytes, found.measured.latencies, strict=True):
        peak = "" if one.peak_bytes is None else f"{one.peak_bytes / 2**20:.1f} MiB"
        times = (one.median_ms, one.iqr_ms, one.median_of("wall"), one.median_of("cpu"))
        opening = (_median(one.first_ms), _median(one.init_ms))
        rows.append((model, *(f"{t:.3g}" for t in (*times, *opening)), peak, f"{size / 2**20:.2f} MiB"))
    return rows


def _median(values: tuple[float, ...]) -> float:
    return sorted(values)[len(values) // 2] if values else 0.0


def _speedup_lines(found: Benchmark) -> list[str]:
    """Returns a line for each model after the first."""
    lines = []
    for model, one in zip(found.models[1:], found.speedups, strict=True):
        if one.low <= 1 <= one.high:
            text = f"as fast as far as this can tell ({one.low:.3f} to {one.high:.3f} times)"
        elif one.value > 1:
            text = f"{one.value:.2f} ± {one.margin:.2f} times faster"
        else:
            margin = (1 / one.low - 1 / one.high) / 2
            text = f"{1 / one.value:.2f} ± {margin:.2f} times slower"
        lines.append(f"{model}: {text} than {found.models[0]} (99 % interval)")
    return lines


def _agreement_table(found: Benchmark) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    """Returns title, head and rows: scores here and there, and how far outputs are apart."""
    device, first = found.measured.device, found.agreements[0]
    rows = []
    for model, one in zip(found.models, found.agreements, strict=True):
        errors = [row["largest_error"] for row in one.outputs if row["largest_error"] is not None]
        scores = () if one.here is None or one.there is None else (f"{one.here:.2%}", f"{one.there:.2%}")
        rows.append((model, *scores, f"{max(errors, default=0.0):.2g}"))
    if not first.n_images:
        return f"outputs of a random input on {device} and here", ("model", "largest difference"), rows
    there = "as measured" if device == "host" else "there"
    return f"{first.metric} on {first.n_images} images", ("model", "here", there, "largest difference"), rows


def _differences(found: Benchmark) -> list[str]:
    device = found.measured.device
    pairs = zip(found.models, found.agreements, strict=False)
    return [f"{model}: {device} computes something else than this host" for model, one in pairs if one.differs]


def _kernel_rows(found: Benchmark) -> list[tuple[str, ...]]:
    """Returns the operators that take longest, a column per model, and the sum of all."""
    totals: dict[str, list[float]] = defaultdict(lambda: [0.0] * len(found.models))
    for i, one in enumerate(found.measured.latencies):
        for kernel in one.kernels:
            totals[kernel.op][i] += kernel.ms
    ranked = sorted(totals.items(), key=lambda item: -max(item[1]))
    rows = [(op, *(f"{value:.3g}" for value in values)) for op, values in ranked[:MAX_KERNELS]]
    sums = [sum(values[i] for values in totals.values()) for i in range(len(found.models))]
    return [*rows, ("all", *(f"{value:.3g}" for value in sums))]
