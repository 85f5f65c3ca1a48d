"""Real devices: an ssh server on loopback with keys made on the spot, a browser that opens pages, and an adb daemon.

What needs one skips where it is not: sshd, chromium and the files of ONNX Runtime Web (`bocr-onnx device add web`), or
what `.ci/adbd` gets.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnxruntime
import pytest
from filelock import FileLock

from bocr_onnx.devices import Web, open_device
from bocr_onnx.devices.android import device as android_device
from bocr_onnx.devices.android import native
from bocr_onnx.devices.web import device as web_device
from bocr_onnx.devices.web import ort
from bocr_onnx.errors import DeviceError
from tests.devices.phone import HEADERS, Phone
from tests.devices.phone import missing as missing_phone

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --enable-logging=stderr"
).split()
SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Attributes:
        folder: Its keys, its log, and ``tmp``, where its processes put temporary files.
        port: Where it listens.
        bin: Folder with an ``ssh`` that knows the keys; to be first in PATH.
    """

    folder: Path
    port: int
    bin: Path

    @property
    def device(self) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}"

    def log(self) -> str:
        return (self.folder / "log").read_text()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def make_ssh(folder: Path, *options: str) -> Path:
    """Returns a folder with an ``ssh`` of its own configuration."""
    folder.mkdir(exist_ok=True)
    (folder / "config").write_text("\n".join(["Host *", *(f"  {option}" for option in options)]) + "\n")
    (folder / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder / "config"} "$@"\n')
    (folder / "ssh").chmod(0o755)
    return folder


def known_options(folder: Path, user: str = "user", known: str = "known") -> list[str]:
    """Returns options that know keys of a server's folder, and nothing of this machine's own."""
    return [f"UserKnownHostsFile {folder / known}", f"IdentityFile {folder / user}", "IdentitiesOnly yes"]


def start(folder: Path, path: str | None = None, **variables: str) -> tuple[subprocess.Popen[bytes], Server]:
    """Starts a server whose processes find programs in a path, as this one's where None, and further variables."""
    assert SSHD is not None
    for name in ("host", "user", "stranger"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True, capture_output=True)
    (folder / "tmp").mkdir()
    port = free_port()
    found = path or f"{Path(sys.executable).parent}:/usr/bin:/bin"
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\nPidFile {folder / 'pid'}\n"
        f"AuthorizedKeysFile {folder / 'user.pub'}\nStrictModes no\nPasswordAuthentication no\nUsePAM no\n"
        f"PermitRootLogin yes\nSetEnv PATH={found} HOME={folder} TMPDIR={folder / 'tmp'}"
        f"{''.join(f' {name}={value}' for name, value in variables.items())}\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    known = (folder / "host.pub").read_text().split()[:2]
    (folder / "known").write_text(f"[127.0.0.1]:{port} {' '.join(known)}\n")
    bin_ = make_ssh(folder / "bin", *known_options(folder))
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    return process, Server(folder, port, bin_)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("no sshd here: apt-get install openssh-server")
    process, made = start(tmp_path_factory.mktemp("sshd"))
    yield made
    process.terminate()
    process.wait()


@pytest.fixture
def reached(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server, with the ssh in PATH that knows its keys."""
    monkeypatch.setenv("PATH", f"{server.bin}:{os.environ['PATH']}")
    return server


class Person:
    """Opens pages that are announced, each in a browser of its own; what the browser says lies in a file.

    Args:
        folder: For profiles and what browsers say.
        options: Further ones of the browser.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.options = folder, options
        self.urls: list[str] = []
        self.browsers: list[subprocess.Popen[bytes]] = []

    def invited(self, url: str, address: str) -> None:
        """Opens a page; takes the place of what prints its URL."""
        del address
        assert CHROMIUM is not None
        self.urls.append(url)
        profile = f"--user-data-dir={self.folder / f'profile{len(self.urls)}'}"
        with (self.folder / "said").open("ab") as said:
            command = [CHROMIUM, *QUIET, *self.options, profile, url]
            self.browsers.append(subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True))

    def said(self) -> list[str]:
        """Returns what pages wrote into the console; the browser's own word on WebGPU is none of theirs."""
        lines = (self.folder / "said").read_text().splitlines()
        return [line for line in lines if "CONSOLE" in line and "No available adapters" not in line]

    def leave(self) -> None:
        """Kills the browsers."""
        for browser in self.browsers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(browser.pid, signal.SIGKILL)
            browser.wait()


@pytest.fixture(scope="session")
def ort_web() -> Path:
    """The folder with ONNX Runtime Web; fetched where `BOCR_ONNX_TEST_FETCH` says that tests may."""
    if CHROMIUM is None:
        pytest.skip("no browser here: apt-get install chromium")
    folder = ort.default_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        try:
            ort.read_files(folder)
        except DeviceError:
            if not os.environ.get("BOCR_ONNX_TEST_FETCH"):
                pytest.skip("no ONNX Runtime Web here: bocr-onnx device add web --yes")
            try:
                ort.unpack(ort.fetch(), folder)
            except DeviceError as error:
                pytest.skip(error.message)
    return folder


@pytest.fixture
def person(ort_web: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Person]:
    """Somebody who opens the page as soon as it is announced."""
    made = Person(tmp_path)
    open_device.cache_clear()
    monkeypatch.setattr(web_device, "_invite", made.invited)
    yield made
    made.leave()


@pytest.fixture(scope="session")
def browsed(ort_web: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """A browser whose page stays connected."""
    made, device = Person(tmp_path_factory.mktemp("browser")), Web()
    device.invite = made.invited
    yield device
    device.close()
    made.leave()


@pytest.fixture(scope="session")
def native_runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runner of phones, built here for this processor, and this environment's ONNX Runtime."""
    if missing_phone() or shutil.which("gcc") is None:
        pytest.skip(missing_phone() or "no C compiler here")
    folder = tmp_path_factory.mktemp("native")
    library = next(iter((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")))
    with zipfile.ZipFile(folder / "onnxruntime.aar", "w") as archive:
        archive.write(library, "jni/x86_64/libonnxruntime.so")
        for header in HEADERS.glob("onnxruntime*.h"):
            archive.write(header, f"headers/{header.name}")
    native.build(folder / "onnxruntime.aar", "gcc", folder / "android", "x86_64")
    return folder / "android"


@pytest.fixture(scope="session")
def plugged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    """A phone by cable."""
    if missing_phone():
        pytest.skip(missing_phone())
    patch = pytest.MonkeyPatch()
    patch.setenv("ANDROID_ADB_SERVER_PORT", str(free_port()))
    made = Phone(tmp_path_factory.mktemp("phone"))
    patch.setattr(android_device, "BASE", str(made.folder / "tmp"))
    try:
        made.start()
        yield made
    finally:
        made.stop()
        patch.undo()


@pytest.fixture
def phone(plugged: Phone, native_runner: Path, monkeypatch: pytest.MonkeyPatch) -> Phone:
    """The phone, with a native runner."""
    monkeypatch.setenv(native.VARIABLE, str(native_runner))
    open_device.cache_clear()
    return plugged
