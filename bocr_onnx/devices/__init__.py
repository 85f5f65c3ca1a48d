"""Where latency is measured: devices by name."""

from __future__ import annotations

from collections.abc import Callable

from bocr_onnx.devices.device import Clock, Device, Latency
from bocr_onnx.devices.host import Host, choose_clock
from bocr_onnx.errors import UsageError, did_you_mean

DEVICES: dict[str, Callable[[], Device]] = {"host": Host}
"""What opens a device, by its name."""


def open_device(name: str) -> Device:
    """Returns a device by name.

    Raises:
        UsageError: There is none of that name.
    """
    if name not in DEVICES:
        raise UsageError(f"the device must be a known one, got {name!r}", hint=did_you_mean(name, DEVICES))
    return DEVICES[name]()


__all__ = ["DEVICES", "Clock", "Device", "Host", "Latency", "choose_clock", "open_device"]
