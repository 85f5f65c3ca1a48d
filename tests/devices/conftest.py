"""A real ssh server on loopback, with keys made on the spot; what needs it skips where there is no sshd."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

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
