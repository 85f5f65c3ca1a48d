"""Measures how good the measuring is: models against themselves, quiet and beside another process.

Usage:
    python tools/bench_device.py FILE.onnx ... [--times 20] [--seconds 4] [-o docs/benchmarks/device.json]

A model against itself is 1 times faster; the 99 % interval should hold 1 in at least 19 of 20 measurements, and be
narrow. "loaded" measures beside a process that keeps one core busy. Rows that the output file holds are not measured
again; every measurement is appended as it comes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import bocr_onnx


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/benchmarks/device.json"))
    args = parser.parse_args()
    rows = json.loads(args.output.read_text()) if args.output.exists() else {}
    for file in args.files:
        for load in ("quiet", "loaded"):
            found = rows.setdefault(f"{file.stem} {load}", [])
            spin = f"import os\nwhile os.getppid() == {os.getpid()}: pass"  # ends with this process, however it ends
            busy = subprocess.Popen([sys.executable, "-c", spin]) if load == "loaded" else None
            try:
                while len(found) < args.times:
                    one = bocr_onnx.bench([file, file], seconds=args.seconds)
                    ratio, latency = one.speedups[0], one.measured.latencies[0]
                    found.append([round(v, 5) for v in (ratio.value, ratio.low, ratio.high)] + [latency.clock])
                    args.output.write_text(json.dumps(rows, indent=1) + "\n")
            finally:
                if busy is not None:
                    busy.kill()
            held = sum(low <= 1 <= high for _, low, high, _ in found)
            width = median(high - low for _, low, high, _ in found)
            print(f"{file.stem}, {load}: 1 is in {held} of {len(found)}, median width {width:.3f}", flush=True)


if __name__ == "__main__":
    main()
