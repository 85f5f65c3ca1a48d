"""Prunes detectors that others trained, on photos without labels, and writes how much of what they detect is kept.

Usage:
    python tools/wild_detectors.py PHOTOS FILE.onnx ... [--flops 0.7] [--search sensitivity] [--finetune]
                                   [-o docs/benchmarks/wild_detectors.json]

PHOTOS is a folder of images. 30 % of them score, 30 % are recovered on, and the figures are those of the other 40 %,
which are not used otherwise: mean average precision at an overlap of 0.5 and from 0.5 to 0.95, the original's
detections with a score of 0.25 or more taken for true. Rows that the output file holds are not measured again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import bocr_onnx

SIZES = {
    "yunet_n_dynamic": {"input": (1, 3, 320, 320)},
    "ppocr_v2_det": {"x": (1, 3, 320, 320)},
    "ppocr_v3_det": {"x": (1, 3, 320, 320)},
}
"""Sizes of inputs that a file leaves open, by the stem of its name."""

LAYOUTS = {"ppocr_v2_det": "map", "ppocr_v3_det": "map"}
"""Layouts that are not recognized, by the stem of the name of the file."""


def measure(file: Path, photos: Path, flops: float, search: str, *, finetune: bool) -> dict[str, Any]:
    start = time.perf_counter()
    options = {"data": photos, "input_shapes": SIZES.get(file.stem, {}), "layout": LAYOUTS.get(file.stem, "auto")}
    with tempfile.TemporaryDirectory() as folder:
        slim = Path(folder) / "slim.onnx"
        report = bocr_onnx.prune(
            file, **options, task="detection", flops=flops, search=search, trials=16, recover="oneshot", history="none",
            output=slim,
        )  # fmt: skip
        row: dict[str, Any] = {
            "macs": report.baseline.macs,
            "kept": round(report.result.macs / report.baseline.macs, 4),
            "mAP50": round(report.result.accuracy or 0.0, 4),
            "figures": {o["name"]: o["figures"] or {"distortion": o["distortion"]} for o in report.outputs},
            "prune_s": round(time.perf_counter() - start, 1),
        }
        if finetune:
            trained = bocr_onnx.finetune(
                slim, file, **options, task="detection", epochs=8, optimizer="adamw", learning_rate=1e-3, batch_size=16,
                output=Path(folder) / "tuned.onnx",
            )  # fmt: skip
            row |= {"mAP50_finetuned": round(trained.after, 4), "seconds": round(time.perf_counter() - start, 1)}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--flops", type=float, default=0.7)
    parser.add_argument("--search", default="sensitivity")
    parser.add_argument("--finetune", action="store_true")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/benchmarks/wild_detectors.json"))
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = json.loads(args.output.read_text()) if args.output.exists() else {}
    for file in args.files:
        key = f"{file.stem} {args.search}"
        if key not in rows or (args.finetune and "mAP50_finetuned" not in rows[key]):
            try:
                rows[key] = measure(file, args.photos, args.flops, args.search, finetune=args.finetune)
            except bocr_onnx.BocrError as error:
                rows[key] = {"refused": error.message}
            args.output.write_text(json.dumps(rows, indent=1) + "\n")
            print(key, {k: v for k, v in rows[key].items() if k != "figures"}, flush=True)


if __name__ == "__main__":
    main()
