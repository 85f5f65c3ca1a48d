"""Where latency is measured: devices by name."""

from __future__ import annotations

import functools
from collections.abc import Callable

from bocr_onnx.devices.android import Android
from bocr_onnx.devices.compare import Speedup, choose_clock, speedup, typical
from bocr_onnx.devices.device import Clock, Device, Kernel, Latency, Machine, Measured, Request, Rounds, Tensors
from bocr_onnx.devices.fit import fit_latency
from bocr_onnx.devices.host import Host
from bocr_onnx.devices.probe import Probe, default_file, find_grid, probe, remember, remembered_grid
from bocr_onnx.devices.ssh import Ssh
from bocr_onnx.devices.student import student_quantile
from bocr_onnx.devices.web import Web
from bocr_onnx.errors import UsageError, did_you_mean

DEVICES: dict[str, Callable[[str], Device]] = {"android": Android, "host": Host, "ssh": Ssh, "web": Web}
"""What opens a device, by its kind: what stands before ``://`` or a colon."""


@functools.cache
def open_device(name: str) -> Device:
    """Returns a device by name; the same one for the same name, so that a page stays connected.

    Raises:
        UsageError: There is none of that name.
    """
    kind, _, place = name.partition("://") if "://" in name else name.partition(":")
    if kind not in DEVICES:
        raise UsageError(
            f"`device` must be host, ssh://USER@HOST[:PORT], web[://lan] or android[:SERIAL], got {name!r}",
            hint=did_you_mean(kind, DEVICES),
        )
    return DEVICES[kind](place)


__all__ = [
    "DEVICES",
    "Android",
    "Clock",
    "Device",
    "Host",
    "Kernel",
    "Latency",
    "Machine",
    "Measured",
    "Probe",
    "Request",
    "Rounds",
    "Speedup",
    "Ssh",
    "Tensors",
    "Web",
    "choose_clock",
    "default_file",
    "find_grid",
    "fit_latency",
    "open_device",
    "probe",
    "remember",
    "remembered_grid",
    "speedup",
    "student_quantile",
    "typical",
]
