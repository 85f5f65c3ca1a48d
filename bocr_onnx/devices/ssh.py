"""Latency on another machine over ssh: the system's OpenSSH, with the keys, agents and jump hosts of its configuration.

One connection carries everything: an archive of runner, models and inputs goes in, a result comes out. There all of it
lies in a temporary folder, which is removed whatever happens.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from threading import Thread, Timer
from typing import IO, Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from bocr_onnx.devices.answer import SLACK_S, fault_of, read_answer
from bocr_onnx.devices.device import Machine, Measured, Request, Rounds, Tensors
from bocr_onnx.devices.result import read_outputs, read_result
from bocr_onnx.devices.runner import BEGIN, END
from bocr_onnx.errors import DeviceError, UsageError
from bocr_onnx.graph import Array

PLACE = re.compile(
    r"(?P<user>[A-Za-z0-9_.][\w.-]*@)?(?P<host>[A-Za-z0-9_.][\w.-]*|\[[0-9A-Fa-f:]+\])(?::(?P<port>[0-9]{1,5}))?"
)
"""``USER@HOST:PORT``; no part begins with a dash, which ssh would take for an option."""

OPTIONS = ("BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=5", "ServerAliveCountMax=3")
VENV = "~/.cache/bocr-onnx/venv"
INSTALL = f"python3 -m venv {VENV} && {VENV}/bin/pip install onnxruntime numpy"
SCRIPT = (
    'd=$(mktemp -d) || exit 1; trap \'rm -rf "$d"\' EXIT HUP INT TERM; export TMPDIR="$d"; '
    'p="$HOME/.cache/bocr-onnx/venv/bin/python3"; [ -x "$p" ] || p=python3; '
    'tar -xf - -C "$d" && "$p" "$d/runner.py" "$d"'
)
"""Run by the shell there; a virtual environment of that name comes before the python3 of the system."""

SSH_FAILED = 255
"""Exit code of ssh where it is ssh itself that failed."""

MAX_OUTPUT = 1 << 28
"""Bytes of a result from here on are taken for a mistake."""

UNREACHABLE = re.compile(
    r"[Cc]onnection (refused|timed out)|[Cc]ould not resolve|No route to host|Network is unreachable"
)


class Ssh:
    """A machine that is reached over ssh.

    Args:
        place: ``USER@HOST[:PORT]``; what ssh's configuration calls a host is one.

    Raises:
        UsageError: It has another form.
        DeviceError: There is no ssh here.
    """

    def __init__(self, place: str) -> None:
        match = PLACE.fullmatch(place)
        if match is None:
            raise UsageError(f"`device` must be ssh://USER@HOST[:PORT], got {f'ssh://{place}'!r}")
        if shutil.which("ssh") is None:
            raise DeviceError("ssh must be installed on this host to reach others")
        self.name = f"ssh://{place}"
        self.target = f"{match['user'] or ''}{match['host'].strip('[]')}"
        port = ["-p", match["port"]] if match["port"] else []
        self.command = ["ssh", "-T", *(part for o in OPTIONS for part in ("-o", o)), *port, "--", self.target]

    def close(self) -> None:
        """Does nothing: nothing is held open."""

    def measure(
        self, models: Sequence[bytes], feeds: Mapping[str, Array], request: Request, progress: Rounds | None = None
    ) -> Measured:
        """Returns the latency of every model on the same inputs; see `Device`."""
        found = self._run(_archive(asdict(request), models, feeds), request.budget_s + SLACK_S, progress)
        return read_result(self.name, found, request, len(models))

    def outputs(
        self,
        models: Sequence[bytes],
        batches: Mapping[str, Array],
        names: Sequence[str],
        request: Request,
        progress: Rounds | None = None,
    ) -> tuple[Tensors, ...]:
        """Returns tensors of every model for every batch; see `Device`."""
        asked = asdict(request) | {"names": list(names)}
        found = self._run(_archive(asked, models, batches), SLACK_S, progress)
        n_batches = len(next(iter(batches.values())))
        return read_outputs(self.name, found, (len(models), n_batches, len(names)))

    def check(self) -> Machine:
        """Returns what the machine is; see `Device`."""
        found = self._run(_archive({}, (), {}), SLACK_S, None)
        try:
            return TypeAdapter(Machine).validate_python(found.get("machine"))
        except ValidationError as error:
            raise DeviceError(f"{self.name} must say what machine it is, got {error.errors()[0]['msg']}") from error

    def install(self) -> None:
        """Installs ONNX Runtime there, into a virtual environment that measuring looks for.

        Raises:
            DeviceError: The device cannot be reached, or the installation fails; the message has its last line.
        """
        done = subprocess.run([*self.command, INSTALL], capture_output=True, text=True, check=False, timeout=SLACK_S)
        if done.returncode == SSH_FAILED:
            raise self._failure(done.returncode, done.stderr)
        if done.returncode:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
            raise DeviceError(
                f"{self.name} must be able to install onnxruntime, got: {last[0][:300]}",
                hint=f"By hand: ssh {self.target} '{INSTALL}'",
            )

    def _run(self, archive: bytes, limit_s: float, progress: Rounds | None) -> dict[str, Any]:
        said: list[str] = []
        pipe = subprocess.PIPE
        with subprocess.Popen([*self.command, SCRIPT], stdin=pipe, stdout=pipe, stderr=pipe) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            helpers = (
                Thread(target=_send, args=(process.stdin, archive), daemon=True),
                Thread(target=_listen, args=(process.stderr, said, progress), daemon=True),
            )
            limit = Timer(limit_s, process.kill)
            for helper in (*helpers, limit):
                helper.start()
            try:
                output = process.stdout.read(MAX_OUTPUT).decode("utf-8", "replace")
                code = process.wait()
            finally:
                late = limit.finished.is_set()
                limit.cancel()
                process.kill()
                for helper in helpers:
                    helper.join(timeout=5)
        if late:
            raise DeviceError(f"{self.name} must answer within {limit_s:.0f} s, it did not")
        return self._result(output, code, "\n".join(said))

    def _result(self, output: str, code: int, said: str) -> dict[str, Any]:
        if BEGIN not in output or END not in output:
            raise self._failure(code, said)
        found = read_answer(self.name, output)
        if "missing" in found:
            python = str(found.get("python", "python3"))[:200]
            raise DeviceError(
                f"{self.name} must have {str(found['missing'])[:60]} for {python}, it is missing",
                hint=f"bocr-onnx device check {self.name} --install, or: ssh {self.target} '{INSTALL}'",
            )
        if "error" in found:
            raise fault_of(self.name, str(found["error"]))
        return found

    def _failure(self, code: int, said: str) -> DeviceError:
        """Returns what went wrong before there was a result, in words."""
        last = said.strip().splitlines()[-1][:300] if said.strip() else f"exit code {code}"
        if "Host key verification failed" in said or "IDENTIFICATION HAS CHANGED" in said:
            return DeviceError(
                f"{self.name} must have the host key that ssh knows of it, got: {last}",
                hint=f"Connect by hand once and compare the key: ssh {self.target}",
            )
        if "Permission denied" in said:
            return DeviceError(
                f"{self.name} must let you in by a key, without a password, got: {last}",
                hint=f"ssh-copy-id {self.target}",
            )
        if UNREACHABLE.search(said):
            return DeviceError(f"{self.name} must be reachable, got: {last}", hint=f"Does `ssh {self.target}` work?")
        if code == 127 or "python3: not found" in said or "python3: command not found" in said:
            return DeviceError(f"{self.name} must have python3, got: {last}")
        if code in (137, -9) or "Killed" in said:
            return DeviceError(f"{self.name} must have memory enough for the model; the process was killed there")
        return DeviceError(
            f"{self.name} was lost while it measured, got: {last}", hint="Nothing was changed there; run it again."
        )


def _archive(request: Mapping[str, Any], models: Sequence[bytes], feeds: Mapping[str, Array]) -> bytes:
    """Returns a tar of the runner and of all that it reads."""
    arrays = io.BytesIO()
    np.savez(arrays, *feeds.values())
    runner = resources.files("bocr_onnx.devices").joinpath("runner.py").read_bytes()
    asked = json.dumps({**request, "inputs": list(feeds), "n_models": len(models)}).encode()
    members = {"runner.py": runner, "request.json": asked, "feeds.npz": arrays.getvalue()}
    members |= {f"{i}.onnx": model for i, model in enumerate(models)}
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def _send(stream: IO[bytes], content: bytes) -> None:
    try:
        stream.write(content)
        stream.flush()  # and stays open: the runner ends where it closes
    except OSError:  # the other side has gone, which the exit code tells
        pass


def _listen(stream: IO[bytes], said: list[str], progress: Rounds | None) -> None:
    for line in stream:
        text = line.decode("utf-8", "replace").rstrip()
        if (match := re.fullmatch(r"round ([0-9]{1,6}) ([0-9]{1,6})", text)) is None:
            said.append(text[:1000])
        elif progress is not None:
            progress(int(match[1]), int(match[2]))
