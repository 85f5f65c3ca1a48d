"""Prunes detectors that others trained, on photos without labels, and writes how much of what they detect is kept.

Usage:
    python tools/wild_detectors.py PHOTOS FILE.onnx ... [--flops 0.7] [--search sensitivity] [--finetune]
                                   [-o docs/benchmarks/wild_detectors.json]

PHOTOS is a folder of images; where there is none of that name, 400 pages with text, headings, tables and pictures are
drawn into it, for detectors of text and of layout. 30 % of the images score, 30 % are recovered on, and the figures are
those of the other 40 %, which are not used otherwise: mean average precision at an overlap of 0.5 and from 0.5 to 0.95,
the original's detections with a score of 0.25 or more taken for true. Rows that the output file holds are not measured
again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from PIL import Image, ImageDraw, ImageFont

import bocr_onnx

SIZES = {"yunet_n_dynamic": (320, 320), "ppocr_v3_det": (320, 320), "ch_PP-OCRv4_det_infer": (320, 320)}
"""Height and width of inputs that a file leaves open, by the stem of its name."""

TEXT = {"task": "detection", "layout": "map", "preset": "letterbox-imagenet"}
NAMED = {"ppocr_v3_det": TEXT, "ch_PP-OCRv4_det_infer": TEXT}
"""Options of detectors whose layout is not recognized."""


def draw_page(rng: np.random.Generator) -> Image.Image:
    """Returns a page with a heading, paragraphs in one or two columns, perhaps a table and a picture."""
    width, height = int(rng.integers(420, 520)), int(rng.integers(520, 640))
    page = Image.new("RGB", (width, height), (int(rng.integers(235, 256)),) * 3)
    pen, columns, top = ImageDraw.Draw(page), int(rng.integers(1, 3)), 24

    def words(n: int) -> str:
        letters = np.array(list("etaoinshrdlucmfwypvbgk"))
        return " ".join("".join(rng.choice(letters, rng.integers(2, 9))) for _ in range(n))

    pen.text((28, top), words(3).title(), fill="black", font=ImageFont.load_default(int(rng.integers(18, 28))))
    wide = (width - 40) // columns
    for column in range(columns):
        x, y = 20 + column * wide, top + 48
        while y < height - 60:
            kind, size = rng.random(), int(rng.integers(9, 13))
            if kind < 0.7:
                for _ in range(int(rng.integers(2, 7))):
                    pen.text(
                        (x, y), words(max(1, wide // (size * 4))), fill=(20, 20, 20), font=ImageFont.load_default(size)
                    )
                    y += size + 4
            elif kind < 0.85:
                rows, cells = int(rng.integers(2, 5)), int(rng.integers(2, 4))
                for row in range(rows + 1):
                    pen.line((x, y + row * 18, x + wide - 16, y + row * 18), fill="black")
                for cell in range(cells + 1):
                    pen.line(
                        (x + cell * (wide - 16) // cells, y, x + cell * (wide - 16) // cells, y + rows * 18),
                        fill="black",
                    )
                y += rows * 18
            else:
                tall = int(rng.integers(40, 110))
                noise = rng.integers(0, 256, (5, 6, 3)).astype(np.uint8)
                page.paste(Image.fromarray(noise).resize((wide - 24, tall), Image.Resampling.BICUBIC), (x, y))
                y += tall
            y += int(rng.integers(10, 22))
    return page


def draw_pages(folder: Path, n: int = 400) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(n):
        draw_page(rng).save(folder / f"{i:03}.png")


def measure(file: Path, photos: Path, flops: float, search: str, *, finetune: bool) -> dict[str, Any]:
    start = time.perf_counter()
    options: dict[str, Any] = {"data": photos} | NAMED.get(file.stem, {"task": "detection"})
    if file.stem in SIZES:
        (name,) = (i.name for i in onnx.load(file).graph.input)
        options["input_shapes"] = {name: (1, 3, *SIZES[file.stem])}
    with tempfile.TemporaryDirectory() as folder:
        slim = Path(folder) / "slim.onnx"
        report = bocr_onnx.prune(
            file, **options, flops=flops, search=search, trials=16, recover="oneshot", history="none",
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
                slim, file, **options, epochs=8, optimizer="adamw", learning_rate=1e-3, batch_size=16,
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
    if not args.photos.exists():
        draw_pages(args.photos)
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
