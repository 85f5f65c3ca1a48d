"""Latency on a phone by cable: with a native runner where one was added, otherwise in the phone's browser.

The runner is experimental: it has run through a real adb daemon on x86, and on no phone yet.
"""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Timer
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from onnx.helper import np_dtype_to_tensor_dtype

from bocr_onnx.devices.android.adb import find_phone
from bocr_onnx.devices.android.native import RUNNER, default_folder, native_files
from bocr_onnx.devices.android.phone import ask_phone, read_phone
from bocr_onnx.devices.answer import LIMITS, SLACK_S, fault_of, read_answer
from bocr_onnx.devices.device import CPU, Machine, Measured, Request, Rounds, Tensors
from bocr_onnx.devices.result import read_outputs, read_result
from bocr_onnx.devices.web import Web
from bocr_onnx.errors import DeviceError, ModelError
from bocr_onnx.graph import Array

BASE = "/data/local/tmp"
"""Where a phone lets adb write and run programs."""

SCRIPT = (
    "d='{folder}'; trap 'rm -rf \"$d\"' EXIT HUP INT TERM PIPE; export LD_LIBRARY_PATH=\"$d\"; "
    'chmod 755 "$d/{runner}"; "$d/{runner}" "$d" 2>&1 >"$d/result"; echo "RC:$?"; cat "$d/result"'
)
"""Progress comes as it is, the result once it is whole; the exit code as text, since old versions of adb lose it."""

NO_RUNNER = "no native runner was added (`device add android`): this is the phone's browser"
EXPERIMENTAL = "the native runner of phones is experimental"


class Android:
    """A phone by cable.

    Args:
        serial: Its serial number; may be empty where one phone is connected.

    Raises:
        UsageError: The serial number has another form, or there are several phones.
        DeviceError: There is no adb, or no such phone.
    """

    def __init__(self, serial: str = "") -> None:
        self.name = f"android:{serial}" if serial else "android"
        self._phone = find_phone(serial)
        self._web: Web | None = None

    def check(self) -> Machine:
        """Returns what the phone is; see `Device`."""
        said = ask_phone(self._phone)
        if not native_files(default_folder()):
            there = self._browser().check()
            return read_phone(said, there.onnxruntime, there.build)
        output = self._run({}, (), {}, None, SLACK_S)
        return read_phone(said, _version(output), EXPERIMENTAL)

    def close(self) -> None:
        """Closes the page, where there was one."""
        if self._web is not None:
            self._web.close()
            self._web = None
            subprocess.run(self._phone.command("reverse", "--remove-all"), capture_output=True, check=False)

    def measure(
        self, models: Sequence[bytes], feeds: Mapping[str, Array], request: Request, progress: Rounds | None = None
    ) -> Measured:
        """Returns the latency of every model on the same inputs; see `Device`."""
        before = ask_phone(self._phone)
        if not native_files(default_folder()):
            found = self._browser().measure(models, feeds, request, progress)
            machine = read_phone(before, found.machine.onnxruntime, found.machine.build)
            return replace(found, device=self.name, machine=machine, notes=(NO_RUNNER, *found.notes))
        batches = {name: array[None] for name, array in feeds.items()}
        output = self._run(_asked(request), models, batches, progress, request.budget_s + SLACK_S)
        result = read_answer(self.name, output)
        after = read_phone(ask_phone(self._phone), "", "")
        result["machine"] = read_phone(before, _version(output), EXPERIMENTAL)
        result["after"] = {"clock_mhz": after.clock_mhz, "temperature_c": after.temperature_c}
        return read_result(self.name, self._right(result), request, len(models), (EXPERIMENTAL,))

    def outputs(
        self,
        models: Sequence[bytes],
        batches: Mapping[str, Array],
        names: Sequence[str],
        request: Request,
        progress: Rounds | None = None,
    ) -> tuple[Tensors, ...]:
        """Returns tensors of every model for every batch; see `Device`."""
        if not native_files(default_folder()):
            return self._browser().outputs(models, batches, names, request, progress)
        asked = _asked(request) | {"name": list(names)}
        result = read_answer(self.name, self._run(asked, models, batches, progress, SLACK_S))
        n_batches = len(next(iter(batches.values())))
        return read_outputs(self.name, self._right(result), (len(models), n_batches, len(names)))

    def _right(self, result: dict[str, Any]) -> dict[str, Any]:
        if "error" in result:
            raise fault_of(self.name, str(result["error"]))
        return result

    def _run(
        self,
        asked: Mapping[str, Any],
        models: Sequence[bytes],
        batches: Mapping[str, Array],
        progress: Rounds | None,
        limit_s: float,
    ) -> str:
        """Returns what the runner prints, runner and models pushed into a folder there that is removed again."""
        there = f"{BASE}/bocr-onnx-{secrets.token_hex(8)}"
        with tempfile.TemporaryDirectory() as here:
            _write(Path(here), asked, models, batches)
            try:
                self._phone.run("push", f"{here}/.", there, limit_s=SLACK_S)
                return self._listen(SCRIPT.format(folder=there, runner=RUNNER), progress, limit_s)
            finally:
                subprocess.run(self._phone.command("shell", f"rm -rf {there}"), capture_output=True, check=False)

    def _listen(self, script: str, progress: Rounds | None, limit_s: float) -> str:
        pipe = subprocess.PIPE
        lines: list[str] = []
        with subprocess.Popen(
            self._phone.command("shell", script), stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT
        ) as process:
            assert process.stdout is not None
            limit = Timer(limit_s, process.kill)
            limit.start()
            try:
                for line in process.stdout:
                    text = line.decode("utf-8", "replace").rstrip("\r\n")
                    if (match := re.fullmatch(r"round ([0-9]{1,6}) ([0-9]{1,6})", text)) is None:
                        lines.append(text)
                    elif progress is not None:
                        progress(int(match[1]), int(match[2]))
            finally:
                limit.cancel()
                process.kill()
        output = "\n".join(lines)
        if "RC:" not in output:
            last = lines[-1][:300] if lines else "nothing"
            raise DeviceError(
                f"{self.name} was lost while it measured, got: {last}", hint="Connect it and run it again."
            )
        return output

    def _browser(self) -> Web:
        if self._web is None:
            self._web = Web()
            self._web.invite = self._show
        return self._web

    def _show(self, url: str, address: str) -> None:
        """Opens the page in the phone's browser, over the cable."""
        del address
        port = urlsplit(url).port
        self._phone.run("reverse", f"tcp:{port}", f"tcp:{port}")
        said = self._phone.shell(f"am start -a android.intent.action.VIEW -d '{url}' 2>&1")
        print(f"The page is opened on {self._phone.serial}; unlock it, and keep the page in front.", file=sys.stderr)
        if "Error" in said or "not found" in said:
            print(f"It did not open by itself; open it there:\n  {url}", file=sys.stderr)


def _asked(request: Request) -> dict[str, Any]:
    if request.provider != CPU:
        raise DeviceError(f"provider {request.provider} must be available, got {CPU} on phones")
    asked = {"threads": request.threads, "budget_s": request.budget_s, "runs": request.runs, **LIMITS}
    return asked | ({"pin": ",".join(map(str, request.pin))} if request.pin else {})


def _write(folder: Path, asked: Mapping[str, Any], models: Sequence[bytes], batches: Mapping[str, Array]) -> None:
    """Writes what the runner reads: itself, the request, inputs and models."""
    lines = [f"models {len(models)}", f"batches {len(next(iter(batches.values()), ()))}"]
    for key, value in asked.items():
        lines += [f"{key} {_plain(one)}" for one in (value if isinstance(value, list) else [value])]
    data = b""
    for name, array in batches.items():
        data += bytes(-len(data) % 64)
        one = array[0, ...]
        sizes = " ".join(
            map(str, (int(np_dtype_to_tensor_dtype(array.dtype)), len(data), one.nbytes, one.ndim, *one.shape))
        )
        lines.append(f"input {sizes} {_plain(name)}")
        data += np.ascontiguousarray(array).tobytes()
    (folder / "request.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "feeds.bin").write_bytes(data)
    for i, model in enumerate(models):
        (folder / f"{i}.onnx").write_bytes(model)
    for file in native_files(default_folder()):
        (folder / file.name).write_bytes(file.read_bytes())


def _plain(value: object) -> str:
    text = str(value)
    if not text.isprintable() or len(text) > 500:
        raise ModelError(f"names of inputs and outputs must be printable and short for a phone, got {text[:60]!r}")
    return text


def _version(output: str) -> str:
    found = re.search(r"<<<version (\S{1,40}) version>>>", output)
    return found[1] if found else ""
