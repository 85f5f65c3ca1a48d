"""Which devices there are, and what they are."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import asdict, dataclass
from typing import Any

from bocr_onnx.devices import Machine, Probe, default_file, open_device, probe, remember
from bocr_onnx.progress import Progress, Silent


@dataclass(frozen=True, slots=True)
class Checked:
    """A device that can be measured on.

    Attributes:
        device: Its name.
        machine: What it is.
        probe: Its channel grid, and the times it was found by.
    """

    device: str
    machine: Machine
    probe: Probe

    def as_json(self) -> dict[str, Any]:
        """Returns everything as JSON."""
        return {"device": self.device, **asdict(self.machine), "channel_grid": self.probe.grid,
                "probe_ms": {str(width): ms for width, ms in self.probe.times_ms.items()}}  # fmt: skip


def check_device(device: str = "host", *, progress: Progress | None = None) -> Checked:
    """Returns what a device is, and measures its channel grid, which later searches with ``round_to=auto`` take.

    Args:
        device: ``host`` or ``ssh://USER@HOST[:PORT]``.
        progress: Shows the measuring.

    Raises:
        UsageError: It has another form.
        DeviceError: It cannot be reached, or lacks something; the hint says what to do.

    Example:
        >>> check_device().machine.cores >= 1
        True
    """
    opened = open_device(device)
    machine = opened.check()
    with (progress or Silent()).task("Measuring the channel grid") as update:
        found = probe(opened, update)
    remember(default_file(), opened, machine, found)
    return Checked(device, machine, found)


def list_devices() -> dict[str, str]:
    """Returns what can be measured on, and what is there or missing for it, by how it is named."""
    machine = open_device("host").check()
    here = f"{machine.cpu or machine.architecture}, ONNX Runtime {machine.onnxruntime}"
    return {"host": here, "ssh://USER@HOST[:PORT]": _client()}


def _client() -> str:
    path = shutil.which("ssh")
    if path is None:
        return "missing: the command ssh of OpenSSH"
    done = subprocess.run([path, "-V"], capture_output=True, text=True, check=False)
    return f"{(done.stderr or done.stdout).strip().partition(',')[0]}; `bocr-onnx device check ssh://HOST` tries a host"
