"""What a device is: it takes models as bytes and gives raw samples of their latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from bocr_onnx.graph import Array

Clock = Literal["cpu", "wall"]
"""CPU time of the calling thread, or wall time."""


BUDGET_S = 4.0
"""Time spent on measuring all models together."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Time of one run.

    Attributes:
        wall_ms: Raw samples of wall time in ms, in the order they were taken.
        cpu_ms: CPU time of the calling thread in ms during the same runs.
        clock: Which of them is quoted: the same for all models that were compared.
        threads: Intra-op threads.
        batch: Samples per run.
    """

    wall_ms: tuple[float, ...]
    cpu_ms: tuple[float, ...]
    clock: Clock
    threads: int
    batch: int

    @property
    def samples_ms(self) -> tuple[float, ...]:
        """Returns the raw samples of the quoted clock in ms."""
        return self._samples(self.clock)

    @property
    def median_ms(self) -> float:
        """Returns the median of the quoted clock in ms."""
        return self.median_of(self.clock)

    @property
    def iqr_ms(self) -> float:
        """Returns the interquartile range of the quoted clock in ms."""
        return self.iqr_of(self.clock)

    def median_of(self, clock: Clock) -> float:
        """Returns the median of either clock in ms."""
        return _median(self._samples(clock))

    def iqr_of(self, clock: Clock) -> float:
        """Returns the interquartile range of either clock in ms."""
        low, high = np.percentile(self._samples(clock), [25, 75])
        return float(high - low)

    def _samples(self, clock: Clock) -> tuple[float, ...]:
        return self.cpu_ms if clock == "cpu" else self.wall_ms


class Device(Protocol):
    """A place where models run. A further one is a module of this package and a line of `DEVICES`."""

    def measure(
        self,
        models: Sequence[bytes],
        feeds: Mapping[str, Array],
        *,
        threads: int,
        batch: int = 1,
        budget_s: float = BUDGET_S,
    ) -> tuple[Latency, ...]:
        """Returns the latency of every model on the same inputs, measured in turn and without the warm-up.

        Args:
            models: Serialized models with the same inputs.
            feeds: Inputs by name.
            threads: Intra-op threads, 0 for one per core; recorded.
            batch: Samples that the inputs hold; recorded.
            budget_s: Time to spend on all of them, in s.

        Raises:
            ModelError: A model does not run there.
        """
        ...


def _median(samples: Sequence[float]) -> float:
    return float(np.median(samples))
