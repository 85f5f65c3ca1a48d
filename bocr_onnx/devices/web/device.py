"""Latency in a browser: any phone's, over the network or a cable; no app.

The page times ONNX Runtime Web (WebAssembly, or WebGPU where it is real). Its ratios follow the operations of a model,
while those of the native runtime on the same phone follow blocks of channels: every figure says "browser".
"""

from __future__ import annotations

import re
import socket
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from importlib import resources
from ipaddress import ip_address
from queue import Empty
from typing import Any, Literal

import numpy as np
from onnxruntime import __version__ as native_version
from pydantic import BaseModel, Field, ValidationError

from bocr_onnx.devices import runner
from bocr_onnx.devices.answer import LIMITS
from bocr_onnx.devices.device import CPU, Machine, Measured, Request, Rounds, Tensors
from bocr_onnx.devices.result import read_outputs, read_result
from bocr_onnx.devices.web.ort import default_folder, read_files
from bocr_onnx.devices.web.server import MAX_REPORT, Job, PageServer
from bocr_onnx.errors import DeviceError, ModelError, UsageError
from bocr_onnx.graph import Array

PLACE = re.compile(r"(?P<address>lan|[0-9.]{7,15}|\[[0-9A-Fa-f:]+\])?(?::(?P<port>[0-9]{1,5}))?")
PROVIDERS = {CPU: "wasm", "wasm": "wasm", "webgpu": "webgpu", "WebGpuExecutionProvider": "webgpu"}
"""What a browser calls a provider."""

WAIT_S = 300.0
"""Time for somebody to open the page."""

SILENT_S = 180.0
"""Time after which a page that is there and reports nothing is given up; the longest run of a model is shorter."""

POLL_S = 0.2
MAX_OUTPUTS = 1 << 28
PAGE = {"": "page.html", "page.css": "page.css", "page.js": "page.js", "worker.js": "worker.js"}
DTYPES = {
    "bool",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float16",
    "float32",
    "float64",
}
BROWSER = "measured in a browser, which says little of the native runtime on the same device"


class _Browser(BaseModel):
    """What a page says of itself."""

    agent: str = Field(max_length=500)
    system: str = Field(max_length=100)
    architecture: str = Field(max_length=100)
    model: str = Field(max_length=100)
    gpu: str = Field(max_length=200)
    flags: list[Literal["wasm", "threads", "webgpu"]]
    cores: int = Field(ge=1, le=4096)
    memory_gib: float | None = Field(ge=0, le=1 << 20)
    onnxruntime: str = Field(max_length=100)
    threads: int = Field(ge=1, le=4096)
    isolated: bool

    def machine(self) -> Machine:
        """Returns it as the record of a machine."""
        return Machine(
            system=self.system or self.agent,
            architecture=self.architecture,
            cpu=" ".join(filter(None, (self.model, self.gpu))) or "browser",
            flags=tuple(self.flags),
            cores=self.cores,
            memory_bytes=None if self.memory_gib is None else int(self.memory_gib * 2**30),
            python="",
            numpy="",
            onnxruntime=self.onnxruntime,
            build=f"ONNX Runtime Web in a browser: {self.agent}; on the host ONNX Runtime {native_version}",
            emulated=False,
            clock_mhz=None,
            temperature_c=None,
            battery="",
        )


class Web:
    """A browser that opens a page of this host.

    Args:
        place: Address and port to serve the page on; empty for this host alone, ``lan`` for its address on the network.

    Attributes:
        invite: Called with URL and address when nobody has the page open; says so on stderr.

    Raises:
        UsageError: It has another form.
    """

    def __init__(self, place: str = "") -> None:
        match = PLACE.fullmatch(place)
        if match is None:
            raise UsageError(f"`device` must be web, web://lan or web://ADDRESS[:PORT], got {f'web://{place}'!r}")
        self.name = f"web://{place}" if place else "web"
        self._place = match["address"] or "127.0.0.1", int(match["port"] or 0)
        self._server: PageServer | None = None
        self.invite: Callable[[str, str], None] = _invite

    def check(self) -> Machine:
        """Returns what the browser is; see `Device`."""
        job = self._begin({"task": "machine", "provider": "wasm", "threads": 1}, {}, MAX_REPORT)
        return self._browser(self._reports(job, {"machine"})).machine()

    def measure(
        self, models: Sequence[bytes], feeds: Mapping[str, Array], request: Request, progress: Rounds | None = None
    ) -> Measured:
        """Returns the latency of every model on the same inputs; see `Device`.

        What was measured before a page was lost is kept, with a note.
        """
        batches = {name: array[None] for name, array in feeds.items()}
        content = self._content("measure", models, batches, request)
        job = self._begin(content, self._files(models, batches), MAX_REPORT)
        browser, rounds, dropped, notes = None, [], 0, [BROWSER]
        try:
            for found in self._reports(job, {"machine", "round", "dropped"}):
                if found["kind"] == "machine":
                    browser = self._read_browser(found)
                elif found["kind"] == "round":
                    rounds.append(found)
                    if progress is not None:
                        progress(min(len(rounds), runner.MAX_ROUNDS), runner.MAX_ROUNDS)
                else:
                    dropped += 1
        except DeviceError as error:
            if browser is None or len(rounds) < runner.MIN_ROUNDS:
                raise
            notes.append(f"after {len(rounds)} rounds nothing more came: {error.message}")
        if browser is None:
            raise DeviceError(f"{self.name} must say what browser it is, it did not")
        if dropped:
            notes.append(f"the page was hidden: {dropped} rounds were measured again")
        threads = browser.threads
        if request.threads > 1 and not browser.isolated:
            notes.append(f"{request.threads} threads were asked for, the page has one: more need https or localhost")
        asked = replace(request, threads=threads, provider=content["provider"])
        found = {
            "machine": browser.machine(),
            "after": {"clock_mhz": None, "temperature_c": None},
            "providers": [[content["provider"]]],
            "timings": [_timing(rounds, i) for i in range(len(models))],
        }
        if progress is not None:
            progress(len(rounds), len(rounds))
        return read_result(self.name, found, asked, len(models), notes)

    def outputs(
        self,
        models: Sequence[bytes],
        batches: Mapping[str, Array],
        names: Sequence[str],
        request: Request,
        progress: Rounds | None = None,
    ) -> tuple[Tensors, ...]:
        """Returns tensors of every model for every batch; see `Device`."""
        n_batches = len(next(iter(batches.values())))
        content = self._content("outputs", models, batches, request)
        content |= {"names": list(names), "n_batches": n_batches}
        job = self._begin(content, self._files(models, batches), MAX_OUTPUTS)
        sent = [found for found in self._reports(job, {"machine", "outputs"}) if found["kind"] == "outputs"]
        if progress is not None:
            progress(1, 1)
        return read_outputs(self.name, sent[-1] if sent else {}, (len(models), n_batches, len(names)))

    def close(self) -> None:
        """Tells the page that it is done, and stops serving it."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _content(
        self, task: str, models: Sequence[bytes], batches: Mapping[str, Array], request: Request
    ) -> dict[str, Any]:
        if request.provider not in PROVIDERS:
            raise DeviceError(f"provider {request.provider} must be available, got wasm, webgpu in a browser")
        if request.pin:
            raise DeviceError(f"{self.name} cannot keep to cores {list(request.pin)}: a browser chooses them itself")
        offset, inputs = 0, []
        for name, array in batches.items():
            if array.dtype.name not in DTYPES:
                raise ModelError(f"input {name!r} must be of a type that a browser has, got {array.dtype}")
            offset += -offset % 8
            shape = list(array.shape[1:])
            inputs.append({"name": name, "dtype": array.dtype.name, "shape": shape, "offset": offset})
            offset += array.nbytes
        return {
            "task": task,
            "provider": PROVIDERS[request.provider],
            "threads": request.threads,
            "runs": request.runs,
            "budget_s": request.budget_s,
            "limits": LIMITS,
            "inputs": inputs,
            "n_models": len(models),
            "labels": list(request.labels) or [f"model {i + 1}" for i in range(len(models))],
        }

    @staticmethod
    def _files(models: Sequence[bytes], batches: Mapping[str, Array]) -> dict[str, bytes]:
        data = b""
        for array in batches.values():
            data += bytes(-len(data) % 8) + np.ascontiguousarray(array).tobytes()
        return {f"{i}.onnx": model for i, model in enumerate(models)} | {"feeds.bin": data}

    def _begin(self, content: Mapping[str, Any], files: Mapping[str, bytes], max_bytes: int) -> Job:
        server = self._server = self._server or self._opened()
        if not server.connected:
            self.invite(server.url, self._place[0])
        return server.start(content, files, max_bytes)

    def _opened(self) -> PageServer:
        folder = resources.files("bocr_onnx.devices.web").joinpath("page")
        files = {path: folder.joinpath(name).read_bytes() for path, name in PAGE.items()}
        files |= {f"ort/{name}": data for name, data in read_files(default_folder()).items()}
        address, port = self._place
        address = (_lan_address() if address == "lan" else address).strip("[]")
        if not ip_address(address).is_loopback:
            print(
                f"warning: everybody who reaches {address} and knows the address below can open the page",
                file=sys.stderr,
            )
        return PageServer(address, port, files, ("localhost",) if ip_address(address).is_loopback else ())

    def _reports(self, job: Job, kinds: set[str]) -> Generator[dict[str, Any]]:
        """Yields what the page reports until it is done.

        Raises:
            DeviceError: Nobody opens the page, or it is lost, or it reports something else.
            ModelError: A model does not run there.
        """
        assert self._server is not None
        try:
            while True:
                found = self._next(job, self._server.url)
                if found.get("kind") == "done":
                    return
                if found.get("kind") not in kinds:
                    raise self._fault(found)
                yield found
        finally:
            self._server.end()

    @staticmethod
    def _next(job: Job, url: str) -> dict[str, Any]:
        """Returns the next report."""
        since, was_taken = time.monotonic(), job.taken
        while True:
            with suppress(Empty):
                return job.reports.get(timeout=POLL_S)
            if job.taken and not was_taken:
                since, was_taken = time.monotonic(), True
            limit = SILENT_S if was_taken else WAIT_S
            if time.monotonic() - since > limit:
                words = "report something" if was_taken else "be opened"
                raise DeviceError(f"{url} must {words} within {limit:g} s, nothing came")

    def _fault(self, found: Mapping[str, Any]) -> DeviceError | ModelError:
        text = str(found.get("text", ""))[:500]
        if found.get("kind") == "lost":
            return DeviceError(f"{self.name} was lost: the page was closed, or left the network", hint="Open it again.")
        if found.get("kind") != "error":
            return DeviceError(f"{self.name} must report what it is asked for, got {str(found.get('kind'))[:40]!r}")
        if "provider " in text:
            return DeviceError(f"{self.name}: {text}")
        if re.search(r"memory|bad_alloc|allocation", text, re.IGNORECASE):
            return DeviceError(f"{self.name} must have memory enough for the model, got: {text}")
        return ModelError(f"{self.name} must run the model, got: {text}")

    def _browser(self, reports: Generator[dict[str, Any]]) -> _Browser:
        with closing(reports):
            found = next(reports, None)
        if found is None:
            raise DeviceError(f"{self.name} must say what browser it is, it did not")
        return self._read_browser(found)

    def _read_browser(self, found: Mapping[str, Any]) -> _Browser:
        try:
            return _Browser.model_validate(found.get("machine"))
        except ValidationError as error:
            raise DeviceError(f"{self.name} must say what browser it is, got {error.errors()[0]['msg']}") from error


def _timing(rounds: Sequence[Mapping[str, Any]], number: int) -> dict[str, Any]:
    """Returns the samples of a model as a runner gives them; a browser has no clock of CPU time."""

    def of(name: str) -> list[Any]:
        return [r[name][number] if isinstance(r.get(name), list) and number < len(r[name]) else None for r in rounds]

    wall = of("wall_ms")
    cpu = [[0.0] * len(samples) if isinstance(samples, list) else None for samples in wall]
    return {"init_ms": of("init_ms"), "first_ms": of("first_ms"), "wall_ms": wall, "cpu_ms": cpu}


def _lan_address() -> str:
    """Returns this host's address on its network; asking for a route sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect(("192.0.2.1", 9))
        except OSError as error:
            raise DeviceError(f"this host must be on a network, got: {error.strerror}") from error
        return str(asked.getsockname()[0])


def _invite(url: str, address: str) -> None:
    """Says on stderr where the page is; without a person who opens it nothing goes on."""
    print(f"Open this page on the device, and keep it in front:\n  {url}", file=sys.stderr)
    if address == "127.0.0.1":
        print("(on this host; for a phone on the same network: --device web://lan)", file=sys.stderr)
    else:
        import segno

        segno.make(url).terminal(out=sys.stderr, compact=True, border=2)
    sys.stderr.flush()
