"""Reconstruction block by block: each stretch of the slim model learns to give what the original gives there.

A segment is a run of nodes between tensors that are alone alive: a residual block, a depthwise and a pointwise
convolution. Segment by segment, in order:

    min over weights of the segment  sum over targets t of  mean ||slim_t(x') - original_t at kept positions||^2 / var

where x' is what the slim model, trained so far, really feeds it. Adam, no labels, no augmentation. A tenth of the
images is held back: a segment whose loss there does not fall keeps its start.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from onnx import ModelProto
from torch import Tensor

from bocr_onnx.errors import TrainingError
from bocr_onnx.graph import Array, InputRows, ModelGraph, feeds
from bocr_onnx.training.interpreter import WEIGHTS, OnnxModule, export
from bocr_onnx.training.operators.registry import to_tensor

LEAST_WEIGHTED = 2
"""Operators with weights that a segment has at least, where the model has as many."""

BATCH, RATE, WARM_UP = 32, 3e-3, 0.1
HELD_BACK, MIN_IMAGES = 0.1, 64
RUN_BATCH = 100
NOTHING = 1e-10
"""Loss up to which there is nothing to learn: sums in another order."""

Kept = Mapping[str, Mapping[int, Array]]
"""Tensor -> axis -> positions that the slim model keeps."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of steps.

    Attributes:
        start: Number of its first step.
        stop: Number after its last step.
        source: The tensor it reads; empty for the inputs of the model.
        targets: Tensors it makes that are read later, or are outputs of the model.
    """

    start: int
    stop: int
    source: str
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What became of a segment.

    Attributes:
        targets: What it makes.
        before: Loss on the images held back, at the start.
        after: The same at the end, whether it was kept or not.
        kept: Whether it was.
    """

    targets: tuple[str, ...]
    before: float
    after: float

    @property
    def kept(self) -> bool:
        """Returns whether the segment has its new weights."""
        return self.after < self.before


def find_segments(module: OnnxModule, least: int = LEAST_WEIGHTED) -> tuple[Segment, ...]:
    """Returns the segments of a module, in order; together they are all of its steps.

    Args:
        module: The module.
        least: Operators with weights in each, but for a model that has fewer.
    """
    steps, outputs = module.steps, set(module.graph.outputs)
    last = {name: i for i, step in enumerate(steps) for name in step.node.inputs if name}
    alive = {name for name in module.graph.inputs if name in last}
    found: list[Segment] = []
    start, source, weighted = 0, "", 0
    given: list[str] = []
    ready: tuple[int, str, int] | None = None
    for i, step in enumerate(steps):
        if step.node.op in WEIGHTS:
            if ready is not None:  # as late as can be: activations belong to what they follow
                stop, target, n_given = ready
                found.append(Segment(start, stop, source, tuple(dict.fromkeys([*given[:n_given], target]))))
                start, source, weighted, given, ready = stop, target, 0, given[n_given:], None
            weighted += 1
        made = [name for name in step.node.outputs if name]
        given += [name for name in made if name in outputs]
        alive |= {name for name in made if last.get(name, -1) > i}
        alive -= {name for name in alive if last[name] <= i}
        if len(alive) == 1 and weighted >= least:
            ready = i + 1, next(iter(alive)), len(given)
    if weighted < least and found:  # too little is left for a segment of its own
        before = found.pop()
        start, source = before.start, before.source
        given = [name for name in before.targets if name in outputs] + given
    return (*found, Segment(start, len(steps), source, tuple(dict.fromkeys(given))))


def check_reconstructs(original: ModelGraph, n_images: int) -> None:
    """Checks, before anything is fitted, that a model can be reconstructed.

    Args:
        original: The original.
        n_images: Number of images to learn from.

    Raises:
        TrainingError: An operator cannot be trained, a batch is fixed, or there are too few images.
    """
    if n_images < MIN_IMAGES or not original.batch_is_symbolic():
        raise TrainingError(f"reconstruction must have {MIN_IMAGES} images and an open batch, got {n_images}")
    OnnxModule(original)


def reconstruct(
    original: ModelGraph,
    slim: ModelGraph,
    kept: Kept,
    images: InputRows,
    *,
    n_steps: int,
    seed: int = 0,
    device: torch.device | str | None = None,
    until: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[ModelProto, tuple[Rebuilt, ...]]:
    """Returns the slim model with other weights, and what became of every segment.

    Args:
        original: The original.
        slim: The slim model, with the weights it starts from.
        kept: Positions that it keeps of tensors it makes.
        images: Preprocessed, first axis the images; the model's batch must be open.
        n_steps: Steps of each segment.
        seed: Seed for the order of the images.
        device: Where torch computes; a GPU where there is one.
        until: Told before every segment; the rest keeps its start once it says so.
        progress: Told after every segment.

    Raises:
        TrainingError: An operator cannot be trained, the two models have other segments, or there are too few images.
    """
    check_reconstructs(original, len(images))
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    student, teacher = OnnxModule(slim).to(device).eval(), OnnxModule(original).to(device).eval()
    segments, theirs = find_segments(student), find_segments(teacher)
    if [(s.source, s.targets) for s in segments] != [(s.source, s.targets) for s in theirs]:
        raise TrainingError(f"{slim.label} must have the segments of its original to be reconstructed by them")
    whole = feeds(original, images[0 : len(images)])
    ours = their_stream = {name: to_tensor(array) for name, array in whole.items()}
    rng = np.random.default_rng(seed)
    found = []
    for number, (segment, their_segment) in enumerate(zip(segments, theirs, strict=True)):
        if until():
            break
        goals = _run(teacher, their_segment, their_stream, device)
        targets = [_kept(goals[name], kept.get(name, {})) for name in segment.targets]
        found.append(_rebuild(student, segment, ours, targets, n_steps, rng, device))
        if number + 1 < len(segments):
            following = segments[number + 1].source
            ours = {following: _run(student, segment, ours, device)[following]}
            their_stream = {following: goals[following]}
        progress(number + 1, len(segments))
    return export(student, slim), tuple(found)


def _kept(tensor: Tensor, axes: Mapping[int, Array]) -> Tensor:
    for axis, positions in axes.items():
        tensor = tensor.index_select(axis, torch.from_numpy(np.ascontiguousarray(positions)))
    return tensor


def _run(
    module: OnnxModule, segment: Segment, given: Mapping[str, Tensor], device: torch.device | str
) -> dict[str, Tensor]:
    """Returns the targets of a segment for all images, on the host."""
    n, parts = len(next(iter(given.values()))), []
    with torch.no_grad():
        for i in range(0, n, RUN_BATCH):
            part = {name: tensor[i : i + RUN_BATCH].to(device) for name, tensor in given.items()}
            parts.append([t.cpu() for t in module.run_part(segment.start, segment.stop, part, segment.targets)])
    return {name: torch.cat(t) for name, t in zip(segment.targets, zip(*parts, strict=True), strict=True)}


def _rebuild(
    module: OnnxModule,
    segment: Segment,
    given: Mapping[str, Tensor],
    targets: Sequence[Tensor],
    n_steps: int,
    rng: np.random.Generator,
    device: torch.device | str,
) -> Rebuilt:
    """Trains one segment; it keeps its start where the loss on the images held back does not fall."""
    weights = module.weights_of(segment.start, segment.stop)
    n = len(targets[0])
    order = torch.from_numpy(rng.permutation(n))
    held, taught = order[: max(1, round(HELD_BACK * n))], order[max(1, round(HELD_BACK * n)) :]
    floating = [i for i, target in enumerate(targets) if target.is_floating_point()]
    scales = {i: max(float(targets[i].float().var()), 1e-12) for i in floating}

    def loss(rows: Tensor) -> Tensor:
        part = {name: tensor[rows].to(device) for name, tensor in given.items()}
        made = module.run_part(segment.start, segment.stop, part, segment.targets)
        terms = [((made[i] - targets[i][rows].to(device)) ** 2).mean() / scales[i] for i in floating]
        return torch.stack(terms).sum()

    def measured() -> float:
        with torch.no_grad():
            pieces = torch.split(held, RUN_BATCH)
            return float(sum(float(loss(rows)) * len(rows) for rows in pieces)) / len(held)

    before = measured()
    if not weights or not floating or not before > NOTHING:
        return Rebuilt(segment.targets, before, before)
    start = [weight.detach().clone() for weight in weights]
    optimizer = torch.optim.Adam(weights, lr=RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share(step, n_steps))
    for _ in range(n_steps):
        rows = taught[torch.from_numpy(rng.integers(0, len(taught), BATCH))]
        optimizer.zero_grad()
        torch.autograd.backward(loss(rows))
        optimizer.step()
        schedule.step()
    found = Rebuilt(segment.targets, before, measured())
    if not found.kept:
        with torch.no_grad():
            for weight, value in zip(weights, start, strict=True):
                weight.copy_(value)
    return found


def _share(step: int, n_steps: int) -> float:
    """Returns the learning rate of a step, share of the highest: up over the first tenth, down a cosine."""
    warm = max(1, round(WARM_UP * n_steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, n_steps - warm)))
