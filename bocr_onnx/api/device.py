"""Which devices there are, and what they are."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bocr_onnx.devices import Machine, Probe, Ssh, default_file, open_device, probe, remember
from bocr_onnx.devices.android import native
from bocr_onnx.devices.web import ort
from bocr_onnx.errors import DeviceError, UsageError
from bocr_onnx.options import AddOptions, DeviceOptions, keywords
from bocr_onnx.progress import shown


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
        UsageError: The device has another form, or cannot be installed on.
        DeviceError: It cannot be reached, or lacks something; the hint says what to do.

    Example:
        >>> check_device("host").machine.cores >= 1
        True
    """
    progress, opened = shown(options.progress), open_device(options.device)
    if options.install:
        if not isinstance(opened, Ssh):
            raise UsageError(f"`install` needs a device that is reached over ssh, got {options.device!r}")
        with progress.task(f"Installing ONNX Runtime on {opened.name}"):
            opened.install()
    with closing(opened):
        machine = opened.check()
        with progress.task("Measuring the channel grid") as update:
            found = probe(opened, update)
    remember(default_file(), opened, machine, found)
    return Checked(opened.name, machine, found)


@keywords(AddOptions)
def add_device(options: AddOptions) -> Path:
    """Gets what a kind of device needs on this host, and returns the folder it is in now.

    For ``web`` that is ONNX Runtime Web: one release, known by its hash, from the npm registry, or from a folder or an
    archive that is named; nothing is fetched without ``yes``. For ``android`` it is a native runner: one of the user's
    own, or that of this package, built for an archive of ONNX Runtime.

    Args: from the record.

    Raises:
        UsageError: It would have to be fetched, and nobody said yes; or nothing says where it comes from.
        DeviceError: It cannot be fetched, built or kept, or is another release.
    """
    return _add_web(options) if options.device == "web" else _add_android(options)


def _add_android(options: AddOptions) -> Path:
    folder = native.default_folder()
    if options.runner is not None:
        native.keep(Path(options.runner), folder)
    elif options.aar is not None:
        native.build(Path(options.aar), options.compiler, folder, options.abi)
    else:
        raise UsageError(
            "one of `aar` and `runner` must be given for android, got neither",
            hint="onnxruntime-android on Maven Central is one. Without a runner, phones measure in their browser.",
        )
    return folder


def _add_web(options: AddOptions) -> Path:
    progress, folder = shown(options.progress), ort.default_folder()
    source = None if options.ort_web is None else Path(options.ort_web)
    if source is not None and source.is_dir():
        found = ort.read_files(source / "dist" if (source / "dist").is_dir() else source)
        ort.write_files(found, folder)
        return folder
    if source is not None:
        content = _read_archive(source)
    elif options.yes:
        with progress.task(f"Fetching {ort.URL}"):
            content = ort.fetch()
    else:
        raise UsageError(f"`yes` must be given to fetch {ort.URL} ({ort.SIZE_MB} MB)")
    ort.unpack(content, folder)
    return folder


def _read_archive(file: Path) -> bytes:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DeviceError(f"`ort_web` must be a folder or an archive, got {file}: {error.strerror}") from error
    ort.check(content, ort.INTEGRITY, str(file))
    return content


def list_devices() -> dict[str, str]:
    """Returns what can be measured on, and what is there or missing for it, by how it is named."""
    machine = open_device("host").check()
    here = f"{machine.cpu or machine.architecture}, ONNX Runtime {machine.onnxruntime}"
    return {"host": here, "ssh://USER@HOST[:PORT]": _client(), "web, web://lan": _browser(),
            "android[:SERIAL]": _phones()}  # fmt: skip


def _phones() -> str:
    if shutil.which("adb") is None:
        return "missing: the command adb"
    way = "a native runner" if native.native_files(native.default_folder()) else "the phone's browser"
    listed = subprocess.run(["adb", "devices"], capture_output=True, text=True, check=False).stdout.splitlines()
    found = [line.split()[0] for line in listed if line.endswith("\tdevice")]
    return f"{', '.join(found) or 'no phone is connected'}; measured with {way}"


def _browser() -> str:
    folder = ort.default_folder()
    try:
        ort.read_files(folder)
    except DeviceError:
        return "missing: ONNX Runtime Web; `bocr-onnx device add web` fetches it"
    return f"ONNX Runtime Web in {folder}; a browser opens a page of this host"


def _client() -> str:
    path = shutil.which("ssh")
    if path is None:
        return "missing: the command ssh of OpenSSH"
    done = subprocess.run([path, "-V"], capture_output=True, text=True, check=False)
    return f"{(done.stderr or done.stdout).strip().partition(',')[0]}; `bocr-onnx device check ssh://HOST` tries a host"
