r"""Trains an original and its slim version from labels, on one schedule, and writes the top-1 before and after.

Usage:
    python tools/full_schedule.py ORIGINAL.onnx SLIM.onnx --data cifar10/ [--epochs 40] [--seeds 0,1,2] \
        [--minutes 9] [-o full_schedule.jsonl]

Both networks start from the weights in their files and see the same images in the same order: a crop out of four pixels
of padding and a flip, drawn on every epoch. SGD with Nesterov momentum; the learning rate rises over the first
twentieth of the steps and falls to zero along a cosine. Training computes in bfloat16 where there is a GPU and replays
each step as a CUDA graph; every score is computed in float32 on all images of the folder `val`. Nothing is chosen by
it: the figure to quote is that of the last epoch.

A run is one line of the output file, written as it ends. Runs that the file already holds are not repeated.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from bocr_onnx.cost import prunable, quantities_of
from bocr_onnx.data import Samples, open_data
from bocr_onnx.data.augmentation import Augmentation
from bocr_onnx.data.samples import decode
from bocr_onnx.graph import ModelGraph
from bocr_onnx.pipeline.model import read_model
from bocr_onnx.training import OnnxModule, augment, export

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
AUGMENTATION = Augmentation(flip=True, pad=4)
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
WARM_UP = 0.05
N_SCORED_AT_ONCE = 1000
N_TRIAL_STEPS = 3
N_DECODERS = 8


@dataclass(frozen=True, slots=True)
class Images:
    """Normalized images, shape `(N, 3, H, W)` float32, and their classes, shape `(N,)`."""

    inputs: Tensor
    labels: Tensor


@dataclass(frozen=True, slots=True)
class Network:
    """A file, the module made of it, and the weights that every run starts from."""

    name: str
    graph: ModelGraph
    module: OnnxModule
    start: dict[str, Tensor]
    cost: dict[str, int]


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to train."""

    epochs: int
    batch: int
    lr: float

    def rate(self, step: int, n_steps: int) -> float:
        """Returns the learning rate of a step: a linear rise, then half a cosine down to zero."""
        rise = max(1, round(WARM_UP * n_steps))
        if step < rise:
            return self.lr * (step + 1) / rise
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - rise) / (n_steps - rise)))


def read_images(samples: Samples, device: torch.device) -> Images:
    """Returns all images of a pool on a device."""
    if samples.labels is None or not isinstance(samples.images, tuple):
        raise SystemExit(f"{samples.name} must be a folder of image files with classes")
    with ThreadPoolExecutor(N_DECODERS) as pool:
        pixels = np.stack(list(pool.map(lambda path: np.asarray(decode(path).convert("RGB")), samples.images)))
    unit = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values, device=device).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    return Images((unit - mean) / std, torch.from_numpy(samples.labels).to(device))


def read_network(path: Path, device: torch.device) -> Network:
    """Returns the network of a file on a device."""
    graph = read_model(path)
    module = OnnxModule(graph).to(device)
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    start = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    return Network(path.name, graph, module, start, quantities_of(prunable(graph).cost))


def top1(module: nn.Module, images: Images) -> float:
    """Returns the percentage of images whose class the module ranks first."""
    module.eval()
    with torch.no_grad():
        batches = zip(images.inputs.split(N_SCORED_AT_ONCE), images.labels.split(N_SCORED_AT_ONCE), strict=True)
        right = sum((module(x)[0].argmax(1) == y).sum() for x, y in batches)
    module.train()
    return 100 * float(right) / len(images.labels)


class KeptConstants(TorchFunctionMode):
    """Makes each constant on a GPU once: a recording cannot copy from the host, as the steps of a Slice do."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[str, Tensor] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not torch.tensor or torch.device(kwargs.get("device") or "cpu").type == "cpu":
            return func(*args, **kwargs)
        key = repr((args, kwargs))
        if key not in self._made:
            self._made[key] = func(*args, **kwargs)
        return self._made[key]


class GradientStep:
    """Computes the loss of a batch and its gradients; on a GPU, by replay of what it recorded once.

    Args:
        module: Its weights and running statistics are changed by the trial steps before the recording.
        inputs: A batch of the shape that all batches have.
        labels: Its classes.
    """

    def __init__(self, module: OnnxModule, inputs: Tensor, labels: Tensor) -> None:
        self._module = module
        self._inputs = inputs.clone(memory_format=torch.channels_last)
        self._labels = labels.clone()
        self._constants = KeptConstants()
        module.train()
        self._run = self._recorded() if inputs.is_cuda else self._compute

    def __call__(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss, and leaves the gradients with the parameters."""
        self._inputs.copy_(inputs)
        self._labels.copy_(labels)
        self._run()
        return self._loss

    def _compute(self) -> None:
        self._module.zero_grad()
        # Cached casts of the weights would be replayed stale.
        autocast = torch.autocast(self._inputs.device.type, torch.bfloat16, self._inputs.is_cuda, cache_enabled=False)
        with self._constants, autocast:
            loss = functional.cross_entropy(self._module(self._inputs)[0], self._labels)
        loss.backward()
        self._loss = loss.detach()

    def _recorded(self) -> Callable[[], None]:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(N_TRIAL_STEPS):
                self._compute()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._compute()
        return graph.replay


def shuffled(images: Images, batch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields one epoch of augmented batches, all of one size; the rest of the last one is left out."""
    order = torch.randperm(len(images.labels), generator=generator).to(images.labels.device)
    inputs = augment(images.inputs[order], AUGMENTATION, generator)
    labels = images.labels[order]
    for end in range(batch, len(order) + 1, batch):
        yield inputs[end - batch : end], labels[end - batch : end]


def train(
    network: Network, step: GradientStep, schedule: Schedule, seed: int, images: tuple[Images, Images]
) -> dict[str, Any]:
    """Trains a network from its start.

    Args:
        network: The network.
        step: Made from its module.
        schedule: How to train.
        seed: Seed for the order and the augmentation of the images.
        images: To train on, and to score on.

    Returns:
        The figures of the run.
    """
    module, (learnt, unseen) = network.module, images
    module.load_state_dict(network.start)
    generator = torch.Generator().manual_seed(seed)
    groups = module.parameter_groups(WEIGHT_DECAY)
    optimizer = torch.optim.SGD(groups, lr=schedule.lr, momentum=MOMENTUM, nesterov=True)
    n_batches = len(learnt.labels) // schedule.batch
    before, scores, losses, done, began = top1(module, unseen), [], [], 0, time.perf_counter()
    for _ in range(schedule.epochs):
        total = torch.zeros((), device=learnt.labels.device)
        for inputs, labels in shuffled(learnt, schedule.batch, generator):
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(done, schedule.epochs * n_batches)
            total += step(inputs, labels)
            optimizer.step()
            done += 1
        losses.append(round(float(total) / n_batches, 4))
        scores.append(top1(module, unseen))
    seconds = round(time.perf_counter() - began, 1)
    return {"before": before, "after": scores[-1], "top1": scores, "loss": losses, "seconds": seconds}


def described(network: Network, schedule: Schedule, seed: int) -> dict[str, Any]:
    """Returns what tells one run from another."""
    parts = {"epochs": schedule.epochs, "batch": schedule.batch, "lr": schedule.lr}
    return {"network": network.name, "seed": seed, **parts}


def held(path: Path) -> list[dict[str, Any]]:
    """Returns the runs that a file holds."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def measure(args: argparse.Namespace, device: torch.device) -> None:
    """Trains what the output file lacks, the networks in turn, within the time given."""
    began = time.perf_counter()
    schedule = Schedule(args.epochs, args.batch, args.lr)
    pools = open_data(args.data)
    if pools.train is None or pools.held_out is None:
        raise SystemExit(f"{args.data} must hold the folders train and val")
    images = read_images(pools.train, device), read_images(pools.held_out, device)
    networks = [read_network(path, device) for path in (args.original, args.slim)]
    first = images[0].inputs[: args.batch], images[0].labels[: args.batch]
    steps = [GradientStep(network.module, *first) for network in networks]
    print(f"ready after {time.perf_counter() - began:.1f} s", flush=True)
    longest = 0.0
    for seed in args.seeds:
        for network, step in zip(networks, steps, strict=True):
            key = described(network, schedule, seed)
            if any(key.items() <= run.items() for run in held(args.output)):
                continue
            if time.perf_counter() - began + longest > 60 * args.minutes:
                print(f"stopped before {key}: it would not end within {args.minutes:g} minutes", flush=True)
                return
            run = train(network, step, schedule, seed, images)
            longest = max(longest, run["seconds"])
            write(args, {**key, **network.cost, **run, **machine(device)})
            if args.save:
                args.save.mkdir(parents=True, exist_ok=True)
                onnx.save(export(network.module, network.graph), args.save / f"{Path(network.name).stem}_{seed}.onnx")


def machine(device: torch.device) -> dict[str, str]:
    """Returns what computed."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"device": name, "torch": torch.__version__}


def write(args: argparse.Namespace, run: dict[str, Any]) -> None:
    """Appends a run to the output file, and prints the essence of it."""
    with args.output.open("a") as file:
        file.write(json.dumps(run) + "\n")
    figures = f"{run['before']:.2f} -> {run['after']:.2f}, {run['seconds']} s"
    print(f"{run['network']} seed {run['seed']}: {figures}", flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("original", type=Path)
    parser.add_argument("slim", type=Path)
    parser.add_argument("--data", required=True, help="folder with train/CLASS/ and val/CLASS/")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=0.1, help="highest learning rate")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no run that would end later")
    parser.add_argument("--save", type=Path, help="folder for the trained networks")
    parser.add_argument("-o", "--output", type=Path, default=Path("full_schedule.jsonl"))
    return parser.parse_args()


def main() -> None:
    # Scores are exact to float32: TF32 would move some of them by an image or two.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    measure(parse(), torch.device("cuda" if torch.cuda.is_available() else "cpu"))


if __name__ == "__main__":
    main()
