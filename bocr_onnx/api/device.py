"""Which devices there are, and what they are."""

from __future__ import annotations

import shutil
import subprocess

from bocr_onnx.devices import Machine, open_device


def check_device(device: str = "host") -> Machine:
    """Returns what machine a device is.

    Args:
        device: ``host`` or ``ssh://USER@HOST[:PORT]``.

    Raises:
        UsageError: It has another form.
        DeviceError: It cannot be reached, or lacks something; the hint says what to do.

    Example:
        >>> check_device().cores >= 1
        True
    """
    return open_device(device).check()


def list_devices() -> dict[str, str]:
    """Returns what can be measured on, and what is there or missing for it, by how it is named."""
    machine = check_device()
    here = f"{machine.cpu or machine.architecture}, ONNX Runtime {machine.onnxruntime}"
    return {"host": here, "ssh://USER@HOST[:PORT]": _client()}


def _client() -> str:
    path = shutil.which("ssh")
    if path is None:
        return "missing: the command ssh of OpenSSH"
    done = subprocess.run([path, "-V"], capture_output=True, text=True, check=False)
    return f"{(done.stderr or done.stdout).strip().partition(',')[0]}; `bocr-onnx device check ssh://HOST` tries a host"
