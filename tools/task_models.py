"""Trains six small networks other than plain classifiers, prunes them by half, and writes what is left of their use.

Usage:
    python tools/task_models.py train FOLDER [--names unet,landmarks]
    python tools/task_models.py measure FOLDER [--names unet] [--search bocr --trials 20] [-o FILE]

Every network trains in about a minute on two cores; its data are drawn or come from calibration/digits.npz. FOLDER gets
``<name>.onnx``, ``<name>.npz`` (inputs without labels, for bocr-onnx) and ``<name>_test.npz`` (held out, with labels).
What is measured are the networks' own figures on held-out samples, which bocr-onnx never sees: the original, half of
the multiply-accumulates without finetuning, and with two epochs of it. Rows that FILE holds are not measured again; it
is docs/benchmarks/tasks.json by default.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.nn import functional

import bocr_onnx

DIGITS = Path(__file__).parents[1] / "calibration" / "digits.npz"
Arrays = dict[str, np.ndarray[Any, Any]]


def block(n_in: int, n_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(n_in, n_out, 3, stride, 1), nn.BatchNorm2d(n_out), nn.ReLU())


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Sequential(block(i, o), block(o, o)) for i, o in ((3, 16), (16, 32), (32, 64)))
        self.d, self.e = nn.Sequential(block(96, 32), block(32, 32)), nn.Sequential(block(48, 16), block(16, 16))
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        b = self.b(functional.max_pool2d(a, 2))
        c = self.c(functional.max_pool2d(b, 2))
        d = self.d(torch.cat([functional.interpolate(c, scale_factor=2.0), b], 1))
        return self.head(self.e(torch.cat([functional.interpolate(d, scale_factor=2.0), a], 1)))


class Trunk(nn.Module):
    """Convolutions on a digit, then one linear map per output."""

    def __init__(self, *outputs: int, normalized: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(block(1, 32), block(32, 32), block(32, 64, 2), block(64, 64), nn.Flatten())
        self.hidden = nn.Sequential(nn.Linear(1024, 128), nn.ReLU())
        self.heads = nn.ModuleList(nn.Linear(128, n) for n in outputs)
        self.normalized = normalized

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        h = self.hidden(self.body(x))
        found = tuple(functional.normalize(head(h)) if self.normalized else head(h) for head in self.heads)
        return found if len(found) > 1 else found[0]


class Keywords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers = [(20, 48, 5, 2), (48, 64, 3, 1), (64, 64, 3, 2), (64, 96, 3, 1)]
        self.body = nn.Sequential(
            *(nn.Sequential(nn.Conv1d(i, o, k, s, k // 2), nn.BatchNorm1d(o), nn.ReLU()) for i, o, k, s in layers)
        )
        self.head = nn.Linear(96, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean(2))


class TwoInputs(nn.Module):
    """Is the digit larger than a number that a second input gives, one-hot?"""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            block(1, 32), block(32, 48, 2), block(48, 64), nn.Flatten(), nn.Linear(1024, 64), nn.ReLU()
        )
        self.asked = nn.Sequential(nn.Linear(10, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(112, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, image: Tensor, asked: Tensor) -> Tensor:
        return self.head(torch.cat([self.body(image), self.asked(asked)], 1))


def digits(part: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Returns images `(N, 1, 8, 8)` in [0, 1] and their classes, shifted copies among them for training."""
    held = np.load(DIGITS)
    prefix = "" if part == "train" else "val_"
    images, labels = held[f"{prefix}images"].astype(np.float32), held[f"{prefix}labels"].astype(np.int64)
    images = images.reshape(len(images), 1, 8, 8) / images.max()
    if part == "train":
        moved = [np.roll(images, (y, x), (2, 3)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
        images, labels = np.concatenate(moved), np.tile(labels, 9)
    return images, labels


def shapes(n: int, seed: int) -> Arrays:
    """Returns noisy pictures of a disc, a square and a cross, and the class of every pixel."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :32]
    images = rng.normal(0, 0.25, (n, 3, 32, 32)).astype(np.float32)
    masks = np.zeros((n, 32, 32), np.int64)
    for i in range(n):
        for kind in rng.permutation(3)[: rng.integers(1, 4)] + 1:
            cy, cx, r = (*rng.uniform(6, 26, 2), rng.uniform(3, 7))
            dy, dx = np.abs(y - cy), np.abs(x - cx)
            inside = [
                dy**2 + dx**2 < r**2,
                np.maximum(dy, dx) < r * 0.85,
                (np.minimum(dy, dx) < r / 3) & (dy + dx < 1.6 * r),
            ]
            where = inside[kind - 1]
            masks[i][where] = kind
            images[i][:, where] += rng.uniform(0.4, 1.2, (3, 1)).astype(np.float32)
    return {"x": images, "labels": masks}


def corners(part: str) -> Arrays:
    """Returns digits and, in pixels, their centre of mass and the corners of their bounding box."""
    images, _ = digits(part)
    y, x = np.mgrid[:8, :8]
    weight = images[:, 0] / images[:, 0].sum((1, 2), keepdims=True)
    ink = images[:, 0] > 0.3
    rows, columns = ink.any(2), ink.any(1)
    box = [rows.argmax(1), 7 - rows[:, ::-1].argmax(1), columns.argmax(1), 7 - columns[:, ::-1].argmax(1)]
    labels = np.stack([(weight * y).sum((1, 2)), (weight * x).sum((1, 2)), *box], 1)
    return {"x": images, "labels": labels.astype(np.float32)}


def sounds(n: int, seed: int) -> Arrays:
    """Returns spectrograms `(N, 20, 60)` of eight kinds of rising, falling and beating tones in noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 8, n)
    time_, band = np.arange(60) / 60, np.arange(20)[:, None]
    made = rng.normal(0, 0.6, (n, 20, 60)).astype(np.float32)
    for i, kind in enumerate(labels):
        start, speed = rng.uniform(3, 12), rng.uniform(0.7, 1.3)
        slope = (-8, -4, 0, 4, 8, 0, 4, -4)[kind]
        beat = 1 if kind < 5 else 0.5 + 0.5 * np.sign(np.sin(2 * np.pi * (3 + kind) * speed * time_))
        made[i] += (1.4 * beat * np.exp(-((band - start - slope * time_) ** 2) / 2)).astype(np.float32)
    return {"x": made, "labels": labels}


def larger(part: str) -> Arrays:
    images, labels = digits(part)
    asked = np.random.default_rng(len(images)).integers(0, 10, len(images))
    return {"image": images, "asked": np.eye(10, dtype=np.float32)[asked], "labels": (labels > asked).astype(np.int64)}


def plain(part: str) -> Arrays:
    images, labels = digits(part)
    return {"x": images, "labels": labels}


def cross_entropy(found: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(found, labels)


def contrast(found: Tensor, labels: Tensor) -> Tensor:
    """Supervised contrastive loss (Khosla et al., NeurIPS 2020)."""
    likeness = found @ found.T / 0.1 - 1e9 * torch.eye(len(found))
    same = (labels[:, None] == labels[None]).float() - torch.eye(len(found))
    logs = likeness - torch.logsumexp(likeness, 1, keepdim=True)
    return -((same * logs).sum(1) / same.sum(1).clamp_min(1)).mean()


def both(found: tuple[Tensor, ...], labels: Tensor) -> Tensor:
    return functional.cross_entropy(found[0], labels) + functional.cross_entropy(found[1], labels % 2)


def accuracy(outputs: list[Any], labels: Any) -> dict[str, float]:
    return {"accuracy": float((outputs[0].argmax(1) == labels).mean())}


def iou(outputs: list[Any], labels: Any) -> dict[str, float]:
    found = outputs[0].argmax(1)
    ratios = [((found == k) & (labels == k)).sum() / ((found == k) | (labels == k)).sum() for k in range(4)]
    return {"mIoU": float(np.mean(ratios))}


def retrieval(outputs: list[Any], labels: Any) -> dict[str, float]:
    likeness = outputs[0] @ outputs[0].T - 10 * np.eye(len(labels))
    return {"error of the nearest neighbour": float((labels[likeness.argmax(1)] != labels).mean())}


def pixels(outputs: list[Any], labels: Any) -> dict[str, float]:
    return {"error in pixels": float(np.abs(outputs[0] - labels).mean())}


def two_accuracies(outputs: list[Any], labels: Any) -> dict[str, float]:
    return {
        "accuracy": float((outputs[0].argmax(1) == labels).mean()),
        "parity": float((outputs[1].argmax(1) == labels % 2).mean()),
    }


@dataclass(frozen=True)
class Case:
    model: Callable[[], nn.Module]
    data: Callable[[str], Arrays]
    loss: Callable[[Any, Tensor], Tensor]
    figures: Callable[[list[Any], Any], dict[str, float]]
    outputs: tuple[str, ...]
    epochs: int = 8


def drawn(make: Callable[[int, int], Arrays], n: int) -> Callable[[str], Arrays]:
    return lambda part: make(n, 0) if part == "train" else make(n // 4, 1)


CASES = {
    "unet": Case(UNet, drawn(shapes, 2400), cross_entropy, iou, ("seg_logits",), 10),
    "embedding": Case(lambda: Trunk(32, normalized=True), plain, contrast, retrieval, ("embedding",), 6),
    "landmarks": Case(lambda: Trunk(6), corners, functional.mse_loss, pixels, ("points",), 12),
    "keywords": Case(Keywords, drawn(sounds, 6000), cross_entropy, accuracy, ("logits",), 8),
    "two_inputs": Case(TwoInputs, larger, cross_entropy, accuracy, ("logits",), 8),
    "two_heads": Case(lambda: Trunk(10, 2), plain, both, two_accuracies, ("digit_logits", "parity_logits"), 6),
}


def train(name: str, folder: Path) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    held = case.data("train")
    labels = torch.from_numpy(held["labels"])
    inputs = [torch.from_numpy(a) for key, a in held.items() if key != "labels"]
    model = case.model()
    steps = case.epochs * (len(labels) // 64)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    start = time.perf_counter()
    for step in range(steps):
        rows = torch.from_numpy(np.random.default_rng(step).integers(0, len(labels), 64))
        loss = case.loss(model(*(x[rows] for x in inputs)), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    names = [key for key in held if key != "labels"]
    torch.onnx.export(
        model,
        tuple(x[:2] for x in inputs),
        str(folder / f"{name}.onnx"),
        input_names=names,
        output_names=list(case.outputs),
        dynamic_axes={n: {0: "N"} for n in (*names, *case.outputs)},
        dynamo=False,
        opset_version=17,
    )
    rows_kept = np.random.default_rng(0).permutation(len(labels))[:3000]
    np.savez(folder / f"{name}.npz", **{(key if len(names) > 1 else "images"): held[key][rows_kept] for key in names})
    np.savez(folder / f"{name}_test.npz", **case.data("test"))
    print(f"{name}: {time.perf_counter() - start:.0f} s, {figures(name, folder / f'{name}.onnx', folder)}", flush=True)


def figures(name: str, model: Path, folder: Path) -> dict[str, float]:
    """Returns a network's own figures on held-out samples."""
    held = dict(np.load(folder / f"{name}_test.npz"))
    labels = held.pop("labels")
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return CASES[name].figures(session.run(None, held), labels)


def measure(name: str, folder: Path, given: dict[str, Any]) -> dict[str, Any]:
    model, row = folder / f"{name}.onnx", {"original": figures(name, folder / f"{name}.onnx", folder)}
    common = {"data": folder / f"{name}.npz", "flops": 0.5, "round_to": 1, "history": "none", **given}
    for key, epochs in (("pruned", 0.0), ("finetuned", 2.0)):
        report = bocr_onnx.prune(model, output=folder / f"{name}_{key}.onnx", finetune=epochs, **common)
        row[key] = figures(name, Path(report.output), folder)
        row["task"], row[f"{key}_{report.metric}"] = report.task, report.result.accuracy
        row[f"{key}_seconds"] = round(sum(report.seconds.values()), 1)
        row["macs"] = [report.baseline.macs, report.result.macs]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("train", "measure"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--names", default=",".join(CASES))
    parser.add_argument("--search", default="bocr")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/benchmarks/tasks.json"))
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    record = json.loads(args.output.read_text()) if args.output.exists() and args.action == "measure" else {}
    for name in args.names.split(","):
        key = f"{name}, {args.search}, {args.trials} trials, seed {args.seed}"
        if args.action == "train":
            if not (args.folder / f"{name}.onnx").exists():
                train(name, args.folder)
        elif key not in record:
            record[key] = measure(name, args.folder, {"search": args.search, "trials": args.trials, "seed": args.seed})
            args.output.write_text(json.dumps(record, indent=1) + "\n")
            print(f"{key}: {json.dumps(record[key])}", flush=True)


if __name__ == "__main__":
    main()
