"""The live state of one training: student, teacher, optimizer, average, engine."""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from onnx import ModelProto
from torch import Tensor

from bocr_onnx.data.augmentation import Augmentation
from bocr_onnx.errors import TrainingError
from bocr_onnx.graph import Array, ModelGraph, feeds
from bocr_onnx.options import FinetuneSettings
from bocr_onnx.training.augment import augment
from bocr_onnx.training.average import Average
from bocr_onnx.training.interpreter import OnnxModule, export
from bocr_onnx.training.loss import feature_loss, finetune_loss
from bocr_onnx.training.operators.registry import to_tensor
from bocr_onnx.training.targets import Goal, certainty, make_targets, target_tensors, view
from bocr_onnx.training.watch import feature_maps, learnt

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_COLOURS = (1, 3, 4)
_LARGE = 1_000_003


class DivergedError(Exception):
    """The loss, its gradient or a weight is not finite."""


class Learner:
    """Takes steps, and gives the model as it is now.

    Args:
        student: What trains.
        teacher: What it follows; its inputs and outputs are those of the student.
        settings: How.
        augmentation: Random changes to the images.
        engine: Training engine of this process; see `start_engine`.
        goal: What is learnt.
    """

    def __init__(
        self,
        student: ModelGraph,
        teacher: ModelGraph,
        settings: FinetuneSettings,
        augmentation: Augmentation,
        engine: Fabric,
        goal: Goal,
    ) -> None:
        self.settings = settings
        self.augmentation = augmentation
        self.student = student
        self.engine = engine
        self.targets = make_targets(student, goal.heads)
        self.label_loss = goal.label_loss
        self.names = target_tensors(self.targets)
        maps = feature_maps(student, teacher) if settings.feature_weight else ()
        self.plain = OnnxModule(learnt(student, self.names, maps)).to(memory_format=torch.channels_last)
        check_trains(self.plain)
        followed = OnnxModule(learnt(teacher, self.names, maps)).to(memory_format=torch.channels_last)
        self.teacher = followed.to(self.engine.device).eval()
        self.optimizer = _optimizer(self.plain, settings)
        self.module, self.optimizer = self.engine.setup(self.plain, self.optimizer)
        self.average = Average(self.plain, settings.average)
        maker = student.maker(self.names[0])
        self.activation = "" if maker is None else maker.op
        self.colours_last = colours_last(student)

    def share(self, indices: Array) -> Array:
        """Returns the part of a batch that this process sees; all of it on one device."""
        return indices[self.engine.global_rank :: self.engine.world_size]

    def step(self, number: int, images: Array, labels: Array | None, rate: float) -> float:
        """Takes one step and returns the loss before it.

        Args:
            number: Number of the step; seeds its augmentation.
            images: Preprocessed.
            labels: As `finetune` takes them, or None.
            rate: Learning rate.

        Raises:
            DivergedError: The loss or the gradient is not finite; nothing was changed.
        """
        x = self._inputs(images, number)
        y = None if labels is None else torch.from_numpy(labels).to(self.engine.device)
        loss = self._loss(x, y)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise DivergedError(f"the loss became {value}")
        self.optimizer.zero_grad()
        self.engine.backward(loss)
        clip = self.settings.grad_clip or math.inf
        norm = self.engine.clip_gradients(self.module, self.optimizer, max_norm=clip, error_if_nonfinite=False)
        if norm is not None and not math.isfinite(norm) and self.settings.precision != "16-mixed":
            raise DivergedError(f"the norm of the gradient became {float(norm)}")
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.average.update()
        return value

    def _loss(self, x: tuple[Tensor, ...], y: Tensor | None) -> Tensor:
        n = len(self.names)
        with torch.no_grad(), self.engine.autocast():
            wanted = [t.float() if t.is_floating_point() else t for t in self.teacher(*x)]
        found = self.module(*x)
        ours, theirs = (dict(zip(self.names, tensors[:n], strict=True)) for tensors in (found, wanted))
        loss = finetune_loss(
            view(self.targets, ours),
            view(self.targets, theirs),
            y,
            self.settings,
            activation=self.activation,
            weights=[target.weight for target in self.targets],
            sure=certainty(self.targets, theirs),
            label_loss=None if self.label_loss is None else partial(self.label_loss, ours),
        )
        if not found[n:]:
            return loss
        return loss + self.settings.feature_weight * feature_loss(found[n:], wanted[n:])

    def candidate(self) -> ModelProto:
        """Returns the student as it is now, its average where one is kept.

        Raises:
            DivergedError: A trained tensor is not finite: the last step spoilt it without a loss that shows it.
        """
        with self.average.applied():
            if not self.is_finite():
                raise DivergedError("a weight is no longer finite")
            return export(self.plain, self.student)

    def is_finite(self) -> bool:
        """Returns whether every trained tensor is finite."""
        return all(bool(torch.isfinite(t).all()) for _, t in self.plain.named_initializers())

    def state(self) -> dict[str, Any]:
        """Returns what `load` takes."""
        return {
            "module": self.plain.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": list(self.average.tensors),
            "average_steps": self.average.n_steps,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken."""
        self.plain.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load(state["average"], state["average_steps"])

    def _inputs(self, images: Array, number: int) -> tuple[Tensor, ...]:
        if images.dtype.names is None:
            return (self._input(images, number),)
        return tuple(to_tensor(x).to(self.engine.device) for x in feeds(self.student, images).values())

    def _input(self, images: Array, number: int) -> Tensor:
        x = to_tensor(images).to(self.engine.device)
        if x.dim() != 4:
            return x
        x = x.permute(0, 3, 1, 2) if self.colours_last else x
        generator = torch.Generator().manual_seed(self.settings.seed * _LARGE + number)
        x = augment(x, self.augmentation, generator)
        if self.colours_last:
            return x.permute(0, 2, 3, 1).contiguous()
        return x.contiguous(memory_format=torch.channels_last)


def check_trains(module: OnnxModule) -> None:
    """Checks that there is something to train.

    Raises:
        TrainingError: No floating-point weight lies on the way to an output.
    """
    if not any(True for _ in module.parameters()):
        raise TrainingError(
            f"{module.graph.label} must have floating-point weights on the way to its outputs to be trained, got none",
            hint="Quantized weights do not train: finetune the floating-point model and quantize it afterwards.",
        )


def start_engine(settings: FinetuneSettings) -> Fabric:
    """Returns the engine that places modules, mixes precisions and joins devices.

    For more devices than one it starts this very command line again for each further one: whoever calls it must do so
    before anything is written, and leave writing to the process whose engine `is_global_zero`.

    Raises:
        TrainingError: The device is not there.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    on_cuda = settings.device in ("auto", "cuda") and torch.cuda.is_available()
    precision = settings.precision
    if precision == "auto":
        precision = "bf16-mixed" if on_cuda else "32-true"
    try:
        engine = Fabric(accelerator=settings.device, devices=settings.devices, precision=precision)
    except (RuntimeError, ValueError, MisconfigurationException) as error:
        raise TrainingError(
            f"{settings.devices} {settings.device} must be there to train on, got: {str(error).splitlines()[0]}",
            hint="`device=auto` takes what there is.",
        ) from error
    engine.launch()
    return engine


def colours_last(graph: ModelGraph) -> bool:
    """Returns whether a model reads images `(N, H, W, C)`."""
    shape = graph.shapes[graph.inputs[0]]
    return len(shape) == 4 and shape[3] in _COLOURS and shape[1] not in _COLOURS


def _optimizer(module: OnnxModule, settings: FinetuneSettings) -> torch.optim.Optimizer:
    groups = [group for group in module.parameter_groups(settings.weight_decay) if group["params"]]
    rate = settings.settled().learning_rate or 0.0
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate)
    return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum, nesterov=settings.momentum > 0)
