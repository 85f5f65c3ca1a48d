"""What the runner prints becomes a checked record; a device is not trusted to print what it should."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from bocr_onnx.devices.compare import choose_clock, doubts
from bocr_onnx.devices.device import Kernel, Latency, Machine, Measured, Request, Tensors
from bocr_onnx.errors import DeviceError
from bocr_onnx.graph import Array

Ms = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rounds = Annotated[list[Annotated[list[Ms], Field(min_length=1)]], Field(min_length=1)]


class _Timing(BaseModel):
    init_ms: list[Ms]
    first_ms: list[Ms]
    wall_ms: Rounds
    cpu_ms: Rounds
    peak_bytes: int | None = None
    kernels: list[Kernel] = Field(default_factory=list)


class _After(BaseModel):
    clock_mhz: float | None
    temperature_c: float | None


class _Result(BaseModel):
    machine: Machine
    after: _After
    providers: list[list[str]]
    timings: list[_Timing] = Field(min_length=1)


def read_result(
    device: str, found: Mapping[str, Any], request: Request, n_models: int, notes: Sequence[str] = ()
) -> Measured:
    """Returns the record of a measurement.

    Args:
        device: Name of the device.
        found: What its runner gave.
        request: What was asked for.
        n_models: Number of models that were measured.
        notes: What is known to speak against the figures.

    Raises:
        DeviceError: It is not what a runner gives.
    """
    try:
        result = TypeAdapter(_Result).validate_python(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DeviceError(f"device {device} must give a whole result, got {where}: {first['msg']}") from error
    shapes = {tuple(map(len, rounds)) for t in result.timings for rounds in (t.wall_ms, t.cpu_ms)}
    if len(result.timings) != n_models or len(shapes) > 1 or len(set(*shapes)) > 1:
        raise DeviceError(f"device {device} must give as many samples of each of {n_models} models, it did not")
    wall, cpu = ([_flat(getattr(t, name)) for t in result.timings] for name in ("wall_ms", "cpu_ms"))
    clock = choose_clock(wall, cpu, threads=request.threads)
    latencies = tuple(
        Latency(
            wall_ms=w,
            cpu_ms=c,
            clock=clock,
            threads=request.threads,
            batch=request.batch,
            n_rounds=len(timing.wall_ms),
            init_ms=tuple(timing.init_ms),
            first_ms=tuple(timing.first_ms),
            peak_bytes=timing.peak_bytes,
            kernels=tuple(timing.kernels),
        )
        for w, c, timing in zip(wall, cpu, result.timings, strict=True)
    )
    found_notes = (*notes, *doubts(result.machine, latencies, request.provider, result.providers))
    after = result.after
    return Measured(device, result.machine, after.clock_mhz, after.temperature_c, latencies, found_notes)


class _Tensor(BaseModel):
    dtype: Annotated[str, Field(pattern=r"^[<|][fiub][1248]$")]
    shape: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=16)]
    data: str

    def array(self) -> Array:
        """Returns the array that was sent."""
        return np.frombuffer(b64decode(self.data, validate=True), self.dtype).reshape(self.shape)


def read_outputs(device: str, found: Mapping[str, Any], counts: tuple[int, int, int]) -> tuple[Tensors, ...]:
    """Returns the tensors that models gave.

    Args:
        device: Name of the device.
        found: What its runner gave.
        counts: Numbers of models, batches and tensors.

    Raises:
        DeviceError: It is not what a runner gives.
    """
    try:
        sent = TypeAdapter(list[list[list[_Tensor]]]).validate_python(found.get("outputs"))
        read = tuple(tuple(tuple(one.array() for one in batch) for batch in model) for model in sent)
    except ValueError as error:  # a ValidationError is one
        text = str(error).splitlines()[0]
        raise DeviceError(f"device {device} must give the outputs of the models, got: {text}") from error
    n_models, n_batches, n_tensors = counts
    if [len(batch) for model in read for batch in model] != [n_tensors] * n_batches * n_models:
        raise DeviceError(f"device {device} must give {n_tensors} tensors of {n_batches} batches, it did not")
    return read


def _flat(rounds: list[list[float]]) -> tuple[float, ...]:
    return tuple(sample for samples in rounds for sample in samples)
