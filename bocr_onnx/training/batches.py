"""Which images a step sees: a function of the seed and the step, so that training can be taken up anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bocr_onnx.graph import Array


@dataclass(frozen=True, slots=True)
class Batches:
    """Every epoch has an order of its own and drops its incomplete end.

    Attributes:
        n_images: To draw from; fewer than a batch are repeated until one is full.
        batch_size: Images per step.
        seed: Seed for the orders.
    """

    n_images: int
    batch_size: int
    seed: int

    @property
    def n_per_epoch(self) -> int:
        """Returns the steps of one pass."""
        return max(self.n_images // self.batch_size, 1)

    def indices(self, step: int) -> Array:
        """Returns `(batch_size,)` int64 indices for a step counted from 1."""
        epoch, place = divmod(step - 1, self.n_per_epoch)
        order = np.resize(_order(self.n_images, self.seed, epoch), max(self.n_images, self.batch_size))
        return order[place * self.batch_size : (place + 1) * self.batch_size]


@lru_cache(maxsize=1)
def _order(n_images: int, seed: int, epoch: int) -> Array:
    return np.random.default_rng((seed, epoch)).permutation(n_images)
