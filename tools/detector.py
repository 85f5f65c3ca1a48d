"""Trains a small anchor-free detector on drawn shapes, prunes it by half, and measures what it still finds.

Usage:
    python tools/detector.py make FOLDER [--images 1200] [--epochs 12] [--photos 2000]
    python tools/detector.py measure FOLDER [-o docs/benchmarks/detector.json]
    python tools/detector.py draw FOLDER -o docs/detectors.png

Training takes about three minutes on two cores. FOLDER gets ``detector.onnx`` (two grids, its output rows of box and
scores as YOLOv8 has them), ``photos/`` (2,000 images without labels, for bocr-onnx) and ``test/`` (400 held out, with
COCO annotations). What is measured is the mean average precision on ``test/``, which bocr-onnx never sees while it
prunes. Rows that the output file holds are not measured again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss

import bocr_onnx
from bocr_onnx.data import load_preprocessing, open_data
from bocr_onnx.pipeline.model import read_model
from bocr_onnx.runtime import predict_heads
from bocr_onnx.tasks import find_task

SIDE = 96
"""Pixels of the model's input; drawn images are wider than high, and fitted into it."""
CLASSES = ("circle", "square", "triangle")
STRIDES = (8, 16)
COLOURS = {"circle": "#d62728", "square": "#1f77b4", "triangle": "#2ca02c"}
Boxes = list[tuple[int, float, float, float, float]]
"""Class, left, top, width and height in pixels of the drawn image."""


def block(n_in: int, n_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU())


class Detector(nn.Module):
    """A backbone, a grid of stride 8 and one of stride 16, and for every cell distances to four sides and scores."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(block(3, 16, 2), block(16, 32, 2), block(32, 32), block(32, 64, 2), block(64, 64))
        self.deeper = nn.Sequential(block(64, 96, 2), block(96, 96))
        self.necks = nn.ModuleList([nn.Sequential(block(n, 64), block(64, 64)) for n in (64, 96)])
        self.heads = nn.ModuleList([nn.Conv2d(64, 4 + len(CLASSES), 1) for _ in STRIDES])
        for head in self.heads:
            nn.init.constant_(head.bias[4:], -3.0)
        points, strides = grid()
        self.register_buffer("points", points)
        self.register_buffer("strides", strides)

    def rows(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns corners `(N, A, 4)` in pixels and logits `(N, A, C)`."""
        near = self.body(x)
        levels = (near, self.deeper(near))
        found = [head(neck(level)).flatten(2) for head, neck, level in zip(self.heads, self.necks, levels, strict=True)]
        rows = torch.cat(found, 2).transpose(1, 2)
        sides = functional.softplus(rows[..., :4]) * self.strides
        return torch.cat([self.points - sides[..., :2], self.points + sides[..., 2:]], -1), rows[..., 4:]

    def forward(self, x: Tensor) -> Tensor:
        corners, logits = self.rows(x)
        low, high = corners[..., :2], corners[..., 2:]
        return torch.cat([(low + high) / 2, high - low, logits.sigmoid()], -1).transpose(1, 2)


def grid() -> tuple[Tensor, Tensor]:
    """Returns the centres of all cells `(A, 2)` in pixels, and their strides `(A, 1)`."""
    points, strides = [], []
    for stride in STRIDES:
        n = SIDE // stride
        y, x = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
        points.append((torch.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride)
        strides.append(torch.full((n * n, 1), float(stride)))
    return torch.cat(points), torch.cat(strides)


def draw(rng: np.random.Generator) -> tuple[Image.Image, Boxes]:
    """Returns an image of one to four shapes on a noisy ground, and their boxes."""
    width, height = int(rng.integers(112, 145)), int(rng.integers(80, 105))
    low = rng.integers(0, 256, (4, 5, 3)).astype(np.uint8)
    ground = np.asarray(Image.fromarray(low).resize((width, height), Image.Resampling.BICUBIC)).astype(np.float32)
    noisy = np.clip(0.6 * ground + 60 + rng.normal(0, 8, ground.shape), 0, 255).astype(np.uint8)
    picture = Image.fromarray(noisy)
    pen, boxes = ImageDraw.Draw(picture), []
    for _ in range(int(rng.integers(1, 5))):
        side = float(rng.uniform(12, 52))
        x, y = float(rng.uniform(0, width - side - 1)), float(rng.uniform(0, height - side - 1))
        if any(_overlap((x, y, side), (b[1], b[2], b[3])) > 0.2 for b in boxes):
            continue
        label, colour = int(rng.integers(len(CLASSES))), tuple(int(v) for v in rng.integers(0, 256, 3))
        corners = (x, y, x + side, y + side)
        if CLASSES[label] == "circle":
            pen.ellipse(corners, fill=colour)
        elif CLASSES[label] == "square":
            pen.rectangle(corners, fill=colour)
        else:
            pen.polygon([(x + side / 2, y), (x, y + side), (x + side, y + side)], fill=colour)
        boxes.append((label, x, y, side, side))
    return picture, boxes


def _overlap(a: tuple[float, float, float], b: tuple[float, float, float]) -> float:
    wide = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    high = min(a[1] + a[2], b[1] + b[2]) - max(a[1], b[1])
    return max(wide, 0) * max(high, 0) / min(a[2], b[2]) ** 2


def write_images(folder: Path, n: int, seed: int, *, labelled: bool) -> None:
    """Writes drawn images, and their boxes in COCO's format where they are labelled."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    for i in range(n):
        picture, boxes = draw(rng)
        picture.save(folder / f"{i:04}.png")
        images.append({"id": i, "file_name": f"{i:04}.png", "width": picture.width, "height": picture.height})
        annotations += [{"id": len(annotations) + k, "image_id": i, "category_id": b[0] + 1, "bbox": list(b[1:]),
                         "area": b[3] * b[4], "iscrowd": 0} for k, b in enumerate(boxes)]  # fmt: skip
    if labelled:
        categories = [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]
        made = {"images": images, "categories": categories, "annotations": annotations}
        (folder / "annotations.json").write_text(json.dumps(made))


def training_set(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns inputs `(n, 3, SIDE, SIDE)`, corners `(n, 4, 4)` and classes `(n, 4)`, -1 where there is no shape."""
    rng, shapes = np.random.default_rng(7), 4
    x, corners = np.empty((n, 3, SIDE, SIDE), np.float32), np.zeros((n, shapes, 4), np.float32)
    classes = np.full((n, shapes), -1)
    for i in range(n):
        picture, boxes = draw(rng)
        scale = min(SIDE / picture.height, SIDE / picture.width)
        size = round(picture.width * scale), round(picture.height * scale)
        canvas = Image.new("RGB", (SIDE, SIDE), (114, 114, 114))
        left, top = (SIDE - size[0]) // 2, (SIDE - size[1]) // 2
        canvas.paste(picture.resize(size, Image.Resampling.BILINEAR), (left, top))
        x[i] = np.asarray(canvas, np.float32).transpose(2, 0, 1) / 255
        for k, (label, bx, by, w, h) in enumerate(boxes):
            corners[i, k] = np.array([bx, by, bx + w, by + h]) * scale + np.array([left, top, left, top])
            classes[i, k] = label
    return torch.from_numpy(x), torch.from_numpy(corners), torch.from_numpy(classes)


def assign(points: Tensor, strides: Tensor, corners: Tensor, classes: Tensor) -> Tensor:
    """Returns the shape that each cell is responsible for, `(N, A)`, -1 for none.

    A cell is responsible where its centre lies in the inner half of a shape whose size fits its grid.
    """
    centre, size = (corners[..., :2] + corners[..., 2:]) / 2, corners[..., 2:] - corners[..., :2]
    away = (points[None, :, None] - centre[:, None]).abs()  # (N, A, shapes, 2)
    reach = (size[:, None] / 4).clamp_min(strides[None, :, None] / 2)
    small = size.amax(-1) < 28
    fits = torch.where(small[:, None], strides[None, :] == STRIDES[0], strides[None, :] == STRIDES[1])
    inside = (away < reach).all(-1) & fits & (classes >= 0)[:, None]
    return torch.where(inside.any(-1), inside.float().argmax(-1), -1)


def loss(model: Detector, x: Tensor, corners: Tensor, classes: Tensor) -> Tensor:
    boxes, logits = model.rows(x)
    owner = assign(model.points, model.strides, corners, classes)
    image, cell = (owner >= 0).nonzero(as_tuple=True)
    shape = owner[image, cell]
    wanted = torch.zeros_like(logits)
    wanted[image, cell, classes[image, shape]] = 1.0
    sure = logits.sigmoid()
    weight = (wanted - sure).abs() ** 2 * torch.where(wanted > 0, 0.75, 0.25)
    cross = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    n = max(1, len(image))
    return (weight * cross).sum() / n + generalized_box_iou_loss(
        boxes[image, cell], corners[image, shape], reduction="sum"
    ) / n


def train(n: int, epochs: int) -> Detector:
    torch.manual_seed(0)
    x, corners, classes = training_set(n)
    model = Detector().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-3)
    steps, batch = epochs * (n // 32), 32
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for step in range(steps):
        rows = torch.randint(n, (batch,))
        flip = bool(torch.rand(()) < 0.5)
        images, boxes = x[rows], corners[rows]
        if flip:
            images, boxes = (
                images.flip(3),
                torch.stack([SIDE - boxes[..., 2], boxes[..., 1], SIDE - boxes[..., 0], boxes[..., 3]], -1),
            )
        value = loss(model, images.contiguous(memory_format=torch.channels_last), boxes, classes[rows])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step}/{steps}  loss {float(value.detach()):.3f}", flush=True)
    return model.eval()


def make(folder: Path, n: int, epochs: int, n_photos: int = 2000, n_test: int = 400) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_images(folder / "photos", n_photos, 1, labelled=False)
    write_images(folder / "test", n_test, 2, labelled=True)
    model = train(n, epochs)
    torch.onnx.export(
        model, (torch.zeros(2, 3, SIDE, SIDE),), folder / "detector.onnx", input_names=["images"],
        output_names=["output0"], dynamic_shapes=({0: torch.export.Dim("n")},), dynamo=True, verbose=False,
        external_data=False,
    )  # fmt: skip


def measure(folder: Path, rows: dict[str, Any], file: Path | None) -> dict[str, Any]:
    given = {"data": folder / "photos", "preset": "letterbox", "score_images": 300, "final_images": 300}

    def evaluated(path: Path) -> float:
        return round(bocr_onnx.evaluate(path, data=folder / "test", preset="letterbox").score.value, 4)

    for search, trials in (("sensitivity", 1), ("bocr", 16)):
        if search in rows:
            continue
        start = time.perf_counter()
        slim, tuned = folder / f"slim_{search}.onnx", folder / f"tuned_{search}.onnx"
        report = bocr_onnx.prune(
            folder / "detector.onnx", **given, flops=0.5, search=search, trials=trials, history="none", output=slim
        )
        pruned = time.perf_counter()
        bocr_onnx.finetune(
            slim,
            folder / "detector.onnx",
            **given,
            epochs=6,
            batch_size=32,
            output=tuned,
        )
        rows[search] = {
            "mAP": {
                "original": evaluated(folder / "detector.onnx"),
                "pruned": evaluated(slim),
                "finetuned": evaluated(tuned),
            },
            "agreement": report.result.accuracy,
            "outputs": report.outputs,
            "macs_share": round(report.result.macs / report.baseline.macs, 4),
            "prune_s": round(pruned - start, 1),
            "finetune_s": round(time.perf_counter() - pruned, 1),
        }
        print(search, {k: v for k, v in rows[search].items() if k != "outputs"}, flush=True)
        if file is not None:
            file.write_text(json.dumps(rows, indent=1) + "\n")
    return rows


def found(path: Path, folder: Path, n: int) -> tuple[list[Image.Image], Any]:
    """Returns letterboxed test images, and what a model finds in them with a score of 0.25 or more."""
    graph = read_model(path)
    samples = open_data(folder / "test").single
    assert samples is not None
    part, preset = samples.take(np.arange(n)), load_preprocessing("letterbox").fitted(SIDE, SIDE, "NCHW")
    *_, boxes = predict_heads(graph, graph.proto, part.load(preset), find_task(graph, "detection").heads)
    pictures = [Image.fromarray(preset.pixels(Image.open(file))) for file in part.images]
    return pictures, [[b for b in row if b["label"] >= 0 and b["score"] >= 0.25] for row in boxes]


def picture(folder: Path, file: Path, n: int = 6, zoom: int = 2) -> None:
    """Writes a row per model (original, pruned, finetuned), a column per image, and boxes coloured by class."""
    models = [folder / name for name in ("detector.onnx", "slim_bocr.onnx", "tuned_bocr.onnx")]
    sheet = Image.new("RGB", (n * SIDE * zoom, len(models) * SIDE * zoom))
    for row, model in enumerate(models):
        for column, (image, boxes) in enumerate(zip(*found(model, folder, n), strict=True)):
            large = image.resize((SIDE * zoom, SIDE * zoom), Image.Resampling.LANCZOS)
            pen = ImageDraw.Draw(large)
            for box in boxes:
                corners, label = [float(v) * zoom for v in box["box"]], CLASSES[box["label"]]
                pen.rectangle(corners, outline=COLOURS[label], width=2)
                pen.text((corners[0] + 3, corners[1] + 1), f"{label} {box['score']:.2f}", fill="white")
            sheet.paste(large, (column * SIDE * zoom, row * SIDE * zoom))
    sheet.quantize(128).save(file, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["make", "measure", "draw"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/benchmarks/detector.json"))
    args = parser.parse_args()
    if args.command == "make":
        make(args.folder, args.images, args.epochs, args.photos)
    elif args.command == "draw":
        picture(args.folder, args.output)
    else:
        measure(args.folder, json.loads(args.output.read_text()) if args.output.exists() else {}, args.output)


if __name__ == "__main__":
    main()
