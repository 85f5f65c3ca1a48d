"""Whether a device computes what this host does: the same images on both, outputs and scores compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from onnx import ModelProto

from bocr_onnx.data import Labels
from bocr_onnx.devices import Device, Host, Request, Rounds, Tensors
from bocr_onnx.errors import DeviceError
from bocr_onnx.graph import InputRows, ModelGraph
from bocr_onnx.runtime import Outputs, batch_size, batches_of, tensors_of, view_heads, with_heads
from bocr_onnx.tasks import Task, fidelity

DIFFERENT = 1e-3
"""Distortion of an output from which a device computes something else; float kernels differ by about 1e-12."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a model does on a device, and on this host.

    Attributes:
        n_images: Images that ran on both.
        metric: What a score means.
        here: Score on this host.
        there: Score on the device.
        outputs: How near each output there is to that here: distortion, correlation, largest error.
    """

    n_images: int
    metric: str
    here: float
    there: float
    outputs: tuple[Mapping[str, Any], ...]

    @property
    def differs(self) -> bool:
        """Returns whether the device computes something else."""
        return any((row["distortion"] or 0.0) > DIFFERENT for row in self.outputs)

    def record(self) -> dict[str, Any]:
        """Returns it as JSON."""
        return asdict(self) | {"differs": self.differs}


def check_agreement(
    device: Device,
    graph: ModelGraph,
    models: Sequence[ModelProto],
    images: InputRows,
    labels: Labels | None,
    task: Task,
    request: Request,
    progress: Rounds | None = None,
) -> tuple[Agreement, ...]:
    """Returns how each model agrees with itself on this host, which runs it on the CPU provider.

    Args:
        device: Where they run, too.
        graph: The original, which knows the interface.
        models: It and slim models of it.
        images: Preprocessed, first axis the images; each runs alone where the batch is open.
        labels: Of the images; without them the first model, on this host, is the truth.
        task: What a score means.
        request: Gives threads and provider of the device.
        progress: Told after each batch there.

    Raises:
        ModelError: A model does not run.
        DeviceError: The device is lost, or gives something else than the outputs.
    """
    feeds, counts = zip(*batches_of(graph, images, range(len(images)), batch_size(graph, 1)), strict=True)
    batches = {name: np.stack([feed[name] for feed in feeds]) for name in feeds[0]}
    asked = [with_heads(model, task.heads).SerializeToString() for model in models], batches, tensors_of(task.heads)
    here = [_viewed(task, found, counts, "host") for found in Host().outputs(*asked, Request())]
    there = [_viewed(task, found, counts, device.name) for found in device.outputs(*asked, request, progress)]
    if [a.shape for model in here for a in model] != [a.shape for model in there for a in model]:
        raise DeviceError(f"device {device.name} must give outputs of the shapes that they have here, it did not")
    truth = task.truth(here[0], labels)
    return tuple(
        Agreement(
            n_images=len(images),
            metric=task.metric(labelled=labels is not None),
            here=task.score(ours, truth).value,
            there=task.score(theirs, truth).value,
            outputs=fidelity(task.heads, theirs, ours),
        )
        for ours, theirs in zip(here, there, strict=True)
    )


def _viewed(task: Task, batches: Tensors, counts: Sequence[int], device: str) -> Outputs:
    try:
        views = [[a[:n] for a in view_heads(task.heads, found)] for found, n in zip(batches, counts, strict=True)]
        return tuple(np.concatenate(parts) for parts in zip(*views, strict=True))
    except (ValueError, IndexError) as error:
        raise DeviceError(f"device {device} must give the outputs of the model, got others: {error}") from error
