"""Prunes every exported file with arrays made for it, and writes which ones come through, with their score.

Usage:
    python tools/zoo_prune.py FOLDER_OR_FILE ... [--flops 0.7] [-o docs/benchmarks/zoo_prune.json]

Inputs are smooth random fields in the shape and type of each input, 96 samples, without labels: what counts is whether
a file is searched, recovered, proved and scored end to end, and that its score is a figure that can be wrong. Every
file has a process and a time limit of its own; rows that the output file holds are not measured again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

N_SAMPLES = 96
TIME_LIMIT_S = 300

PRUNE = """
import json, sys, numpy as np, onnx
import bocr_onnx
from onnx.helper import tensor_dtype_to_np_dtype
from bocr_onnx.graph import row_shape
from bocr_onnx.pipeline.model import read_model
from scipy.ndimage import gaussian_filter
path, folder, flops, n = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
graph = read_model(path)
rng = np.random.default_rng(0)
columns = {}
for name in graph.inputs:
    shape, dtype = (n, *row_shape(graph, name)), np.dtype(tensor_dtype_to_np_dtype(graph.dtypes[name]))
    if dtype.kind == "f":
        x = rng.standard_normal(shape)
        sides = [0] + [2 if size > 8 else 0 for size in shape[1:]]
        x = gaussian_filter(x, sides) if any(sides) else x
        columns[name] = (x / max(x.std(), 1e-9)).astype(dtype)
    else:
        columns[name] = rng.integers(0, 256 if dtype == np.uint8 else 2, shape).astype(dtype)
shapes = {name: graph.shapes[name] for name in graph.inputs}
options = dict(
    data=columns, flops=flops, search="sensitivity", recover="oneshot", score_images=32, recovery_images=32,
    final_images=32, history="none", input_shapes=shapes, output=f"{folder}/slim.onnx",
)
try:
    report = bocr_onnx.prune(path, **options)
except bocr_onnx.errors.BudgetError:  # thin networks reach the budget on a finer grid
    report = bocr_onnx.prune(path, round_to=1, **options)
print(json.dumps({
    "task": report.task, "metric": report.metric, "score": report.result.accuracy, "outputs": report.outputs,
    "kept": report.result.macs / max(report.baseline.macs, 1), "macs": report.baseline.macs,
}))
"""


def measure(path: Path, flops: float) -> dict[str, Any]:
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-W", "ignore", "-c", PRUNE, str(path), folder, str(flops), str(N_SAMPLES)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False)
        except subprocess.TimeoutExpired:
            return {"status": "too slow", "seconds": TIME_LIMIT_S}
    seconds = round(time.perf_counter() - start, 1)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "Error" in line] or done.stderr.splitlines() or ["killed"]
        return {"status": "refused", "reason": lines[-1][:300], "seconds": seconds}
    row = json.loads(done.stdout.splitlines()[-1])
    varying = [o["distortion"] for o in row.pop("outputs") if o["distortion"] is not None]
    return {"status": "pruned" if any(varying) else "constant", "distortions": varying, **row, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", type=Path, nargs="*")
    parser.add_argument("--flops", type=float, default=0.7)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/benchmarks/zoo_prune.json"))
    parser.add_argument("--limit-s", type=float, default=600, help="No file is begun after this time.")
    args = parser.parse_args()
    rows = json.loads(args.output.read_text()) if args.output.exists() else {}
    files = [f for path in args.paths for f in (sorted(path.glob("*.onnx")) if path.is_dir() else [path])]
    end = time.monotonic() + args.limit_s
    for file in files:
        if file.stem not in rows and time.monotonic() < end:
            rows[file.stem] = measure(file, args.flops)
            args.output.write_text(json.dumps(rows, indent=1) + "\n")
            print(file.stem, {k: v for k, v in rows[file.stem].items() if k != "distortions"}, flush=True)
    print(dict(Counter(row["status"] for row in rows.values())))


if __name__ == "__main__":
    main()
