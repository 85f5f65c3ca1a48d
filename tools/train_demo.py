"""Makes calibration/digits.npz and trains calibration/demo.onnx on its training half.

Run from the repository root::

    python tools/train_demo.py

Nothing is chosen on the held-out digits: the schedule is fixed, the last epoch is the one exported,
and the held-out accuracy is measured once, at the end, by onnxruntime on the exported file.
Needs scikit-learn (the images come with it) and onnxscript (the exporter of torch).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir
import onnxruntime
import torch
from onnxscript.optimizer import fold_constants, remove_unused_nodes
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

SEED = 0
N_VAL = 597
N_EPOCHS = 60
BATCH = 64
OPSET = 18
TOLERANCE = 1e-4
Array = npt.NDArray[np.generic]


class ConvNorm(nn.Sequential):
    """Convolution, batch normalization and, where asked for, ReLU."""

    def __init__(
        self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, groups: int = 1, relu: bool = True
    ) -> None:
        conv = nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(n_out), nn.ReLU() if relu else nn.Identity())


class Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut; a 1x1 projection where the shape changes."""

    def __init__(self, n_in: int, n_out: int, *, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(ConvNorm(n_in, n_out, 3, stride=stride), ConvNorm(n_out, n_out, 3, relu=False))
        same = n_in == n_out and stride == 1
        self.shortcut = nn.Identity() if same else ConvNorm(n_in, n_out, 1, stride=stride, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(N, n_in, H, W)` to `(N, n_out, H / stride, W / stride)`."""
        return functional.relu(self.body(x) + self.shortcut(x))


class Gate(nn.Module):
    """Squeeze and excitation: every channel is scaled by a number in (0, 1) read from all of them."""

    def __init__(self, n: int, n_hidden: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(n, n_hidden, 1)
        self.excite = nn.Conv2d(n_hidden, n, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape `(N, n, H, W)`."""
        pooled = functional.adaptive_avg_pool2d(x, 1)
        return x * torch.sigmoid(self.excite(functional.relu(self.squeeze(pooled))))


class Demo(nn.Module):
    """A small CNN with one of everything that couples channels."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            ConvNorm(1, 32, 3),
            Residual(32, 32),
            Residual(32, 64, stride=2),
            ConvNorm(64, 64, 3, groups=64),
            ConvNorm(64, 64, 1),
            Gate(64, 16),
            Residual(64, 64),
        )
        self.classify = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Maps digits `(N, 1, 8, 8)` in 0..1 to logits `(N, 10)`."""
        return self.classify(self.features(x).mean(dim=(2, 3)))


def write_digits(path: Path) -> dict[str, Array]:
    """Writes the seeded, stratified division of the digits and returns its arrays."""
    digits = load_digits()
    images = digits.images.astype(np.uint8)
    x, x_val, y, y_val = train_test_split(
        images, digits.target.astype(np.int64), test_size=N_VAL, random_state=SEED, stratify=digits.target
    )
    arrays = {"images": x, "labels": y, "val_images": x_val, "val_labels": y_val}
    np.savez_compressed(path, **arrays)
    return arrays


def to_input(images: Array) -> Tensor:
    """Returns `(N, 1, 8, 8)` float32 in 0..1: what the preset ``digits`` does."""
    return torch.from_numpy(images.astype(np.float32) / 16.0).unsqueeze(1)


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Returns the digits a little turned, scaled and shifted (at most 10 degrees, 10 %, one pixel)."""
    n = len(x)
    angle, zoom, dx, dy = (torch.rand(4, n, generator=generator) * 2 - 1).unbind()
    angle, zoom = angle * (10 * torch.pi / 180), 1 + 0.1 * zoom
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    theta = torch.stack([cos, -sin, dx / 4, sin, cos, dy / 4], dim=1).view(n, 2, 3)
    grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, align_corners=False)


def train(x: Tensor, y: Tensor) -> Demo:
    """Trains the demo with SGD and a one-cycle rate; returns it in evaluation mode."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    model = Demo()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    n_steps = N_EPOCHS * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=n_steps)
    for epoch in range(N_EPOCHS):
        order = torch.randperm(len(x), generator=generator)
        for rows in order[: len(x) // BATCH * BATCH].split(BATCH):
            loss = functional.cross_entropy(model(augment(x[rows], generator)), y[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1:3d}  loss {loss.item():.4f}")
    return model.eval()


def export(model: Demo, path: Path) -> None:
    """Writes one self-contained file with an open batch axis; normalizations stay nodes of their own."""
    program = torch.onnx.export(
        model,
        (torch.zeros(2, 1, 8, 8),),
        dynamo=True,
        optimize=False,
        opset_version=OPSET,
        input_names=["input"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
    )
    assert program is not None
    fold_constants(program.model)  # alone: the exporter's own optimizer would melt them into the convolutions
    remove_unused_nodes(program.model)
    proto = onnx_ir.to_proto(program.model)
    drop_zero_biases(proto.graph)
    drop_notes(proto)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def drop_zero_biases(graph: onnx.GraphProto) -> None:
    """Takes away the zeros that the exporter gives every convolution without a bias."""
    zeros = {t.name for t in graph.initializer if not onnx.numpy_helper.to_array(t).any()}
    for node in graph.node:
        if node.op_type == "Conv" and len(node.input) > 2 and node.input[2] in zeros:
            node.input.pop()
    read = {name for node in graph.node for name in node.input}
    kept = [t for t in graph.initializer if t.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def drop_notes(proto: onnx.ModelProto) -> None:
    """Takes the exporter's notes (source lines of the maker's machine) out of the model."""
    proto.doc_string = ""
    del proto.metadata_props[:]
    for item in [proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.initializer]:
        item.doc_string = ""
        if not isinstance(item, onnx.TensorProto):
            del item.metadata_props[:]
    for value in [*proto.graph.input, *proto.graph.output]:
        del value.metadata_props[:]


def held_out_hits(path: Path, x: Tensor, y: Array) -> int:
    """Returns how many digits onnxruntime gets right, after checking that batch 1 and 32 agree."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    batches = [session.run(["logits"], {"input": part.numpy()})[0] for part in x.split(32)]
    logits = np.concatenate(batches)
    single = np.concatenate([session.run(["logits"], {"input": part.numpy()})[0] for part in x[:32].split(1)])
    np.testing.assert_allclose(single, logits[:32], rtol=0, atol=TOLERANCE)
    return int((logits.argmax(axis=1) == y).sum())


def main() -> None:
    """Runs the whole recipe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("calibration"), help="folder to write into")
    folder: Path = parser.parse_args().out
    torch.set_num_threads(1)
    arrays = write_digits(folder / "digits.npz")
    model = train(to_input(arrays["images"]), torch.from_numpy(arrays["labels"]))
    path = folder / "demo.onnx"
    export(model, path)
    n_hits = held_out_hits(path, to_input(arrays["val_images"]), arrays["val_labels"])
    n_val, n_parameters = len(arrays["val_labels"]), sum(p.numel() for p in model.parameters())
    print(f"digits.npz {(folder / 'digits.npz').stat().st_size} bytes, demo.onnx {path.stat().st_size} bytes")
    print(f"{n_parameters} parameters, held-out accuracy {n_hits}/{n_val} = {n_hits / n_val:.4f}")


if __name__ == "__main__":
    main()
