"""What the runner prints becomes a checked record; a device is not trusted to print what it should."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from bocr_onnx.devices.compare import choose_clock, doubts
from bocr_onnx.devices.device import Kernel, Latency, Machine, Measured, Request
from bocr_onnx.errors import DeviceError

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


def read_result(device: str, found: Mapping[str, Any], request: Request, n_models: int) -> Measured:
    """Returns the record of a measurement.

    Args:
        device: Name of the device.
        found: What its runner gave.
        request: What was asked for.
        n_models: Number of models that were measured.

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
    notes = doubts(result.machine, latencies, request.provider, result.providers)
    after = result.after
    return Measured(device, result.machine, after.clock_mhz, after.temperature_c, latencies, notes)


def _flat(rounds: list[list[float]]) -> tuple[float, ...]:
    return tuple(sample for samples in rounds for sample in samples)
