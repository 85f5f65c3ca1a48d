"""Which devices there are, and what they are."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import asdict, dataclass
from typing import Any

from bocr_onnx.devices import Machine, Probe, Ssh, default_file, open_device, probe, remember
from bocr_onnx.errors import UsageError
from bocr_onnx.options import DeviceOptions, keywords
from bocr_onnx.progress import Silent


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


@keywords(DeviceOptions)
def check_device(options: DeviceOptions) -> Checked:
    """Returns what a device is, and measures its channel grid, which later searches with ``round_to=auto`` take.

    Args: from the record.

    Raises:
        UsageError: The device has another form, or is none to install on.
        DeviceError: It cannot be reached, or lacks something; the hint says what to do.

    Example:
        >>> check_device("host").machine.cores >= 1
        True
    """
    progress, opened = options.progress or Silent(), open_device(options.device)
    if options.install:
        if not isinstance(opened, Ssh):
            raise UsageError(f"`install` needs a device that is reached over ssh, got {options.device!r}")
        with progress.task(f"Installing ONNX Runtime on {opened.name}"):
            opened.install()
    machine = opened.check()
    with progress.task("Measuring the channel grid") as update:
        found = probe(opened, update)
    remember(default_file(), opened, machine, found)
    return Checked(opened.name, machine, found)


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
