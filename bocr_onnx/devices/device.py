"""What a device is: it takes models as bytes and gives raw samples of their latency, and says what machine it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np

from bocr_onnx.graph import Array

Clock = Literal["cpu", "wall"]
"""CPU time of the calling thread, or wall time."""

Rounds = Callable[[int, int], None]
"""Told after each round of measuring how many of how many are done."""

BUDGET_S = 4.0
"""Time spent on measuring all models together."""

CPU = "CPUExecutionProvider"


@dataclass(frozen=True, slots=True)
class Request:
    """How models are measured.

    Attributes:
        threads: Intra-op threads; 0 means one per core.
        batch: Samples that the inputs hold; recorded.
        budget_s: Time to spend on all models, in s.
        runs: Runs of each model, in all rounds together; 0 for as many as the budget allows.
        provider: Execution provider of ONNX Runtime; one that is not there is an error.
        pin: Cores that the process keeps to; none for any.
        labels: Names of the models, for whoever watches; may be empty.
        details: Whether peak memory and the time of every kernel are measured, too.
    """

    threads: int = 1
    batch: int = 1
    budget_s: float = BUDGET_S
    runs: int = 0
    provider: str = CPU
    pin: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    details: bool = False


@dataclass(frozen=True, slots=True)
class Kernel:
    """A node of the graph as the runtime has optimized it.

    Attributes:
        name: Its name.
        op: Its operator.
        provider: What runs it.
        ms: Mean time in a run.
    """

    name: str
    op: str
    provider: str
    ms: float


@dataclass(frozen=True, slots=True)
class Latency:
    """Time of one run.

    Attributes:
        wall_ms: Raw samples of wall time in ms, in the order they were taken.
        cpu_ms: CPU time of the calling thread in ms during the same runs.
        clock: Which of them is quoted: the same for all models that were compared.
        threads: Intra-op threads.
        batch: Samples per run.
        n_rounds: Rounds that the samples are of, as many of each; the session was made anew in each.
        init_ms: Time to make the session, one sample per round.
        first_ms: Time of its first run, likewise.
        peak_bytes: Memory at the peak beyond that of an empty process; None where it was not measured.
        kernels: Time of each node; empty where it was not measured.
    """

    wall_ms: tuple[float, ...]
    cpu_ms: tuple[float, ...]
    clock: Clock
    threads: int
    batch: int
    n_rounds: int = 1
    init_ms: tuple[float, ...] = ()
    first_ms: tuple[float, ...] = ()
    peak_bytes: int | None = None
    kernels: tuple[Kernel, ...] = ()

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

    def rounds_ms(self) -> tuple[tuple[float, ...], ...]:
        """Returns the samples of the quoted clock of each round."""
        n = len(self.samples_ms) // self.n_rounds
        return tuple(self.samples_ms[i * n : (i + 1) * n] for i in range(self.n_rounds))

    def median_of(self, clock: Clock) -> float:
        """Returns the median of either clock in ms."""
        return float(np.median(self._samples(clock)))

    def iqr_of(self, clock: Clock) -> float:
        """Returns the interquartile range of either clock in ms."""
        low, high = np.percentile(self._samples(clock), [25, 75])
        return float(high - low)

    def _samples(self, clock: Clock) -> tuple[float, ...]:
        return self.cpu_ms if clock == "cpu" else self.wall_ms


@dataclass(frozen=True, slots=True)
class Machine:
    """What a machine says of itself; see `bocr_onnx.devices.runner`.

    Attributes:
        system: Operating system and its release.
        architecture: ``x86_64``, ``aarch64``, ...
        cpu: Model of the processor.
        flags: Instructions that kernels make use of, as far as the processor has them.
        cores: Cores that the process may use.
        memory_bytes: Memory of the machine; None if it does not say.
        python: Version.
        numpy: Version.
        onnxruntime: Version.
        build: How ONNX Runtime was built.
        emulated: Whether the processor is of another kind than the program.
        clock_mhz: Clock of the first core before measuring; None if it does not say.
        temperature_c: Temperature of the hottest sensor before measuring.
        battery: State and charge; empty where there is none.
    """

    system: str
    architecture: str
    cpu: str
    flags: tuple[str, ...]
    cores: int
    memory_bytes: int | None
    python: str
    numpy: str
    onnxruntime: str
    build: str
    emulated: bool
    clock_mhz: float | None
    temperature_c: float | None
    battery: str


@dataclass(frozen=True, slots=True)
class Measured:
    """Latencies of models that were measured in turn.

    Attributes:
        device: Name of the device.
        machine: What it is.
        clock_mhz: Its clock after measuring; None if it does not say.
        temperature_c: Its temperature after measuring.
        latencies: Latency of each model.
        notes: Why the figures may not be trusted; empty where nothing speaks against them.
    """

    device: str
    machine: Machine
    clock_mhz: float | None
    temperature_c: float | None
    latencies: tuple[Latency, ...]
    notes: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """Returns what the device was, as JSON."""
        after = {"clock_mhz_after": self.clock_mhz, "temperature_c_after": self.temperature_c}
        return {"device": self.device, **asdict(self.machine), **after, "notes": list(self.notes)}


Tensors = tuple[tuple[Array, ...], ...]
"""Tensors by name, for every batch."""


class Device(Protocol):
    """A place where models run. A further one is a module of this package and a line of `DEVICES`."""

    @property
    def name(self) -> str:
        """Returns its name, as ``--device`` takes it."""
        ...

    def check(self) -> Machine:
        """Returns what machine it is.

        Raises:
            DeviceError: It is not reachable, or lacks something.
        """
        ...

    def close(self) -> None:
        """Lets go of what is held open; the device can be used again."""
        ...

    def measure(
        self, models: Sequence[bytes], feeds: Mapping[str, Array], request: Request, progress: Rounds | None = None
    ) -> Measured:
        """Returns the latency of every model on the same inputs, measured in turn and without the warm-up.

        Args:
            models: Serialized models with the same inputs.
            feeds: Inputs by name.
            request: How.
            progress: Told after each round.

        Raises:
            ModelError: A model does not run there.
            DeviceError: The device is not reachable, is lost, or lacks something.
        """
        ...

    def outputs(
        self,
        models: Sequence[bytes],
        batches: Mapping[str, Array],
        names: Sequence[str],
        request: Request,
        progress: Rounds | None = None,
    ) -> tuple[Tensors, ...]:
        """Returns tensors of every model for every batch.

        Args:
            models: Serialized models with the same inputs.
            batches: Inputs by name, one more axis in front: the batches.
            names: Outputs that are wanted.
            request: Gives threads and provider.
            progress: Told after each batch.

        Raises:
            ModelError: A model does not run there.
            DeviceError: The device is not reachable, is lost, or lacks something.
        """
        ...
