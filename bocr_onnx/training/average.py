"""A moving average of the weights, which is scored and kept in their place.

References:
    Polyak, Juditsky: Acceleration of stochastic approximation by averaging, 1992; with exponential decay.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from bocr_onnx.training.interpreter import OnnxModule


class Average:
    """Follows the weights and running statistics of a module.

    Args:
        module: What is followed.
        decay: Per step, in [0, 1); 0 follows at once. Early steps decay faster, (1 + n) / (10 + n) at most.
    """

    def __init__(self, module: OnnxModule, decay: float) -> None:
        self.decay = decay
        self.n_steps = 0
        self._live = [tensor.detach() for _, tensor in module.named_initializers()]
        self.tensors = [tensor.clone() for tensor in self._live] if decay else []

    def update(self) -> None:
        """Follows the module by one step."""
        if not self.tensors:
            return
        decay = min(self.decay, (1 + self.n_steps) / (10 + self.n_steps))
        with torch.no_grad():
            torch._foreach_lerp_(self.tensors, self._live, 1 - decay)
        self.n_steps += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Puts the average into the module while it is open."""
        if not self.tensors:
            yield
            return
        kept = [tensor.clone() for tensor in self._live]
        _copy(self.tensors, self._live)
        try:
            yield
        finally:
            _copy(kept, self._live)

    def load(self, tensors: list[Tensor], n_steps: int) -> None:
        """Goes on from stored tensors."""
        _copy(tensors, self.tensors)
        self.n_steps = n_steps


def _copy(sources: list[Tensor], targets: list[Tensor]) -> None:
    with torch.no_grad():
        for source, target in zip(sources, targets, strict=True):
            target.copy_(source)
