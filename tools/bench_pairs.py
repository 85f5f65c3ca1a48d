"""Measures models against what `--round-to auto` leaves of them at half the MACs, here and on another device.

Usage:
    python tools/bench_pairs.py FILE.onnx ... [--device ssh://USER@HOST] [--seconds 6] [--times 3]
        [-o docs/benchmarks/pairs.json]

The channel grid of this host is measured three times first. Allocations are uniform and weights not recovered: neither
changes the time of a kernel. A row is a file, a device and a grid: how many times faster the slim model is, with the
ends of its 99 % interval and the clock. Rows that the output file holds are not measured again; every measurement is
appended as it comes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import bocr_onnx
from bocr_onnx.api.device import check_device


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--device", help="measured in turn with the host")
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/benchmarks/pairs.json"))
    args = parser.parse_args()
    rows = json.loads(args.output.read_text()) if args.output.exists() else {}

    def keep() -> None:
        args.output.write_text(json.dumps(rows, indent=1) + "\n")

    while len(grids := rows.setdefault("channel grid of the host", [])) < 3:
        grids.append(check_device().probe.grid)
        keep()
    devices = ["host", *([args.device] if args.device else [])]
    for file in args.files:
        with tempfile.TemporaryDirectory() as folder:
            slim = Path(folder) / "slim.onnx"
            bocr_onnx.prune(file, flops=0.5, search="uniform", history="none", output=slim)
            for _ in range(args.times):
                for device in devices:
                    found = rows.setdefault(f"{file.stem} {device.partition(':')[0]}", [])
                    if len(found) < args.times:
                        pair = bocr_onnx.bench([file, slim], seconds=args.seconds, device=device)
                        ratio, latency = pair.speedups[0], pair.measured.latencies[0]
                        found.append([round(v, 4) for v in (ratio.value, ratio.low, ratio.high)] + [latency.clock])
                        keep()
        for device in devices:
            shown = ", ".join(
                f"{value:.3f} ({low:.3f} to {high:.3f}, {clock})"
                for value, low, high, clock in rows[f"{file.stem} {device.partition(':')[0]}"]
            )
            print(f"{file.stem}, {device}: {shown} times faster", flush=True)


if __name__ == "__main__":
    main()
