"""Whether a device computes what this host does: the same images on both, outputs and scores compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto

from bocr_onnx.data import Labels
from bocr_onnx.devices import Device, Host, Request, Rounds, Tensors
from bocr_onnx.errors import DeviceError
from bocr_onnx.graph import Array, InputRows, ModelGraph, random_feeds
from bocr_onnx.runtime import WEIGHED, Head, Outputs, batch_size, batches_of, tensors_of, view_heads, with_heads
from bocr_onnx.tasks import Task, fidelity

Batch = tuple[dict[str, Array], int]
"""Inputs by name, and how many images they hold."""

DIFFERENT = 0.01
"""Norm of the difference over that of an output from which a device computes something else; float kernels differ by
about 1e-6."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a model does on a device, and on this host.

    Attributes:
        n_images: Images that ran on both; 0 where it was one random input, whose score means nothing.
        metric: What a score means.
        here: Score on this host; None for a random input.
        there: Score on the device, likewise.
        outputs: How near each output there is to that here: distortion, correlation, largest error,
            relative error.
    """

    n_images: int
    metric: str
    here: float | None
    there: float | None
    outputs: tuple[Mapping[str, Any], ...]

    @property
    def differs(self) -> bool:
        """Returns whether the device computes something else."""
        return any((row["relative_error"] or 0.0) > DIFFERENT for row in self.outputs)

    def record(self) -> dict[str, Any]:
        """Returns it as JSON."""
        return asdict(self) | {"differs": self.differs}


def batches_for(graph: ModelGraph, images: InputRows) -> list[Batch]:
    """Returns images as batches of a device, each image alone where the batch is open.

    Args:
        graph: The model.
        images: Preprocessed, first axis the images.
    """
    return list(batches_of(graph, images, range(len(images)), batch_size(graph, 1)))


def check_outputs(
    device: Device, graphs: Sequence[ModelGraph], request: Request, progress: Rounds | None = None
) -> tuple[Agreement, ...]:
    """Returns how the outputs that models share agree with themselves on this host, on a random input.

    Args:
        device: Where they run, too.
        graphs: Models with the same inputs.
        request: Gives threads and provider of the device.
        progress: Told after each model there.

    Raises:
        ModelError: A model does not run.
        DeviceError: The device is lost, or gives something else than the outputs.
    """
    first = graphs[0]
    names = [name for name in first.outputs if all(_is_numbers(graph, name) for graph in graphs)]
    if not names:
        return ()
    asked = [graph.proto.SerializeToString() for graph in graphs], _stacked([random_feeds(first)]), names
    here, there = Host().outputs(*asked, Request()), device.outputs(*asked, request, progress)
    heads = [Head(name) for name in names]
    _check_shapes(device, here, there)
    return tuple(
        Agreement(0, "", None, None, _nearness(heads, theirs, ours))
        for ((ours,), (theirs,)) in zip(here, there, strict=True)
    )


def _is_numbers(graph: ModelGraph, name: str) -> bool:
    """Returns whether a graph has an output of a name that is a tensor of numbers, and no text or sequence."""
    return name in graph.outputs and graph.dtypes.get(name) not in (None, TensorProto.UNDEFINED, TensorProto.STRING)


def _stacked(feeds: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    return {name: np.stack([feed[name] for feed in feeds]) for name in feeds[0]}


def _check_shapes(device: Device, here: Sequence[Any], there: Sequence[Any]) -> None:
    def shapes(found: Any) -> Any:
        return found.shape if isinstance(found, np.ndarray) else [shapes(one) for one in found]

    if shapes(here) != shapes(there):
        raise DeviceError(f"device {device.name} must give outputs of the shapes that they have here, it did not")


def _nearness(heads: Sequence[Head], there: Outputs, here: Outputs) -> tuple[dict[str, Any], ...]:
    """Returns how near tensors are, and how large their difference is beside them."""
    rows = fidelity(heads, there, here)
    return tuple(row | {"relative_error": _relative(a, b)} for row, a, b in zip(rows, there, here, strict=True))


def _relative(there: Array, here: Array) -> float | None:
    if here.dtype == WEIGHED:
        there, here = there["value"], here["value"]
    if here.dtype.names or not here.size:
        return None
    a, b = there.astype(np.float64), here.astype(np.float64)
    return float(np.linalg.norm((a - b).ravel()) / max(float(np.linalg.norm(b.ravel())), 1e-30))


def check_agreement(
    device: Device,
    models: Sequence[ModelProto],
    batches: Sequence[Batch],
    labels: Labels | None,
    task: Task,
    request: Request,
    progress: Rounds | None = None,
) -> tuple[Agreement, ...]:
    """Returns how each model agrees with itself on this host, which runs it on the CPU provider.

    Args:
        device: Where they run, too.
        models: The original and slim models of it.
        batches: Inputs, see `batches_for`.
        labels: The labels of the images; without them the first model, on this host, is the truth.
        task: What a score means.
        request: Gives threads and provider of the device.
        progress: Told after each batch there.

    Raises:
        ModelError: A model does not run.
        DeviceError: The device is lost, or gives something else than the outputs.
    """
    feeds, counts = zip(*batches, strict=True)
    protos = [with_heads(model, task.heads).SerializeToString() for model in models]
    asked = protos, _stacked(feeds), tensors_of(task.heads)
    here = [_viewed(task, found, counts, "host") for found in Host().outputs(*asked, Request())]
    there = [_viewed(task, found, counts, device.name) for found in device.outputs(*asked, request, progress)]
    _check_shapes(device, here, there)
    truth = task.truth(here[0], labels)
    return tuple(
        Agreement(
            n_images=sum(counts),
            metric=task.metric(labelled=labels is not None),
            here=task.score(ours, truth).value,
            there=task.score(theirs, truth).value,
            outputs=_nearness(task.heads, theirs, ours),
        )
        for ours, theirs in zip(here, there, strict=True)
    )


def _viewed(task: Task, batches: Tensors, counts: Sequence[int], device: str) -> Outputs:
    try:
        views = [[a[:n] for a in view_heads(task.heads, found)] for found, n in zip(batches, counts, strict=True)]
        return tuple(np.concatenate(parts) for parts in zip(*views, strict=True))
    except (ValueError, IndexError) as error:
        raise DeviceError(f"device {device} must give the outputs of the model, got others: {error}") from error
