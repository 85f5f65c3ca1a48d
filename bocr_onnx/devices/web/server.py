"""Serves one page to one browser, hands it jobs, and takes what it reports.

Nothing is served but the keys of a dictionary, below a random token. Who asks under another host's name, sends too
much, or comes second is refused. What is reported is passed on as it came: who reads it must check it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from threading import Event, Lock, Thread
from typing import Any

from bocr_onnx.errors import DeviceError

TOKEN_BYTES = 16
PING_S = 0.5
"""A page that is gone is noticed when the next ping does not reach it."""

REQUEST_TIMEOUT_S = 30
MAX_REPORT = 1 << 20
"""Bytes of a report where a job says nothing else."""

TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".mjs": "text/javascript",
         ".wasm": "application/wasm"}  # fmt: skip
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; "
    "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",  # these three give threads and a fine clock
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
LOST = {"kind": "lost"}
"""Put into the reports of a job whose page has gone."""


@dataclass(slots=True)
class Job:
    """What a page is to do.

    Attributes:
        number: Its number.
        content: What the page is told, as JSON.
        max_bytes: Size of the largest report that is taken.
        reports: What has come back, and `LOST` where the page has gone.
        taken: Whether a page has been told of it.
    """

    number: int
    content: Mapping[str, Any]
    max_bytes: int = MAX_REPORT
    reports: Queue[dict[str, Any]] = field(default_factory=Queue)
    taken: bool = False


class PageServer:
    """A server on one address, until it is closed.

    Args:
        address: Address of this machine to listen on.
        port: Port; 0 for any.
        files: What is served, by path below the token; the empty path is the page.
        names: Host names under which it may be asked for, beside the address.

    Raises:
        DeviceError: It cannot listen there.
    """

    def __init__(self, address: str, port: int, files: Mapping[str, bytes], names: tuple[str, ...] = ()) -> None:
        self.token = secrets.token_urlsafe(TOKEN_BYTES)
        self.files = dict(files)
        self.job: Job | None = None
        self.stopped = Event()
        self._lock = Lock()
        self._session: str | None = None
        self._number = 0
        try:
            self._http = _Http((address, port), _Handler)
        except OSError as error:
            raise DeviceError(f"this host must be able to listen on {address}:{port}, got: {error.strerror}") from error
        self._http.pages = self
        self.port = int(self._http.server_address[1])
        host = f"[{address}]" if ":" in address else address
        self.hosts = {f"{name}:{self.port}" for name in (host, *names)}
        self.url = f"http://{host}:{self.port}/{self.token}/"
        Thread(target=self._http.serve_forever, daemon=True).start()

    def start(self, content: Mapping[str, Any], files: Mapping[str, bytes], max_bytes: int = MAX_REPORT) -> Job:
        """Returns a job that the next page that is there will do.

        Args:
            content: What the page is told, as JSON.
            files: What the job needs, by name; served below ``job/`` until it ends.
            max_bytes: Size of the largest report that is taken.
        """
        with self._lock:
            self._number += 1
            self.files |= {f"job/{name}": data for name, data in files.items()}
            self.job = Job(self._number, {**content, "job": self._number}, max_bytes)
            return self.job

    def end(self) -> None:
        """Ends the job: its files are no longer served, its reports no longer taken."""
        with self._lock:
            self.job = None
            self.files = {name: data for name, data in self.files.items() if not name.startswith("job/")}

    def close(self) -> None:
        """Stops serving."""
        self.stopped.set()
        self._http.shutdown()
        self._http.server_close()

    @property
    def connected(self) -> bool:
        """Returns whether a page is there."""
        return self._session is not None

    def claim(self) -> str | None:
        """Returns the key of a new page; None where one is there already."""
        with self._lock:
            if self._session is not None:
                return None
            self._session = secrets.token_urlsafe(TOKEN_BYTES)
            return self._session

    def release(self) -> None:
        """Forgets the page, which has gone, and tells the job."""
        with self._lock:
            self._session = None
            if self.job is not None and self.job.taken:
                self.job.reports.put(dict(LOST))

    def knows(self, session: str | None) -> bool:
        """Returns whether a key is that of the page that is there."""
        known = self._session
        return known is not None and session is not None and secrets.compare_digest(known, session)

    def take(self) -> Job | None:
        """Returns the job where no page was told of it yet."""
        with self._lock:
            if self.job is None or self.job.taken:
                return None
            self.job.taken = True
            return self.job


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    pages: PageServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: whoever broke the connection knows."""


class _Handler(BaseHTTPRequestHandler):
    server: _Http
    server_version, sys_version, protocol_version = "bocr-onnx", "", "HTTP/1.1"
    timeout = REQUEST_TIMEOUT_S

    def do_GET(self) -> None:
        """Serves a file, or the stream of jobs."""
        path = self._allowed_path()
        if path == "jobs":
            self._stream()
        elif path is not None:
            self._serve(path)

    def do_POST(self) -> None:
        """Takes a report."""
        path = self._allowed_path()
        if path is None:
            return
        pages, length = self.server.pages, self.headers.get("Content-Length", "")
        job = pages.job
        if path != "report" or not pages.knows(self.headers.get("X-Session")):
            self._refuse(HTTPStatus.FORBIDDEN)
        elif not length.isascii() or not length.isdigit():
            self._refuse(HTTPStatus.LENGTH_REQUIRED)
        elif job is None or int(length) > job.max_bytes:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            self._take(job, self.rfile.read(int(length)))

    def _take(self, job: Job, body: bytes) -> None:
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or found.get("job") != job.number:
            self._refuse(HTTPStatus.BAD_REQUEST)
            return
        job.reports.put(found)
        self._answer(HTTPStatus.NO_CONTENT)

    def _allowed_path(self) -> str | None:
        """Returns the path below the token; None, and refused, for anybody who does not know it."""
        pages = self.server.pages
        first, slash, rest = self.path.partition("/")[2].partition("/")
        known = secrets.compare_digest(first.encode(), pages.token.encode())
        if not (known and slash) or self.headers.get("Host") not in pages.hosts:
            self._refuse(HTTPStatus.NOT_FOUND)
            return None
        return rest

    def _serve(self, path: str) -> None:
        data = self.server.pages.files.get(path)
        if data is None:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        suffix = f".{path.rpartition('.')[2]}" if path else ".html"
        self._answer(HTTPStatus.OK, TYPES.get(suffix, "application/octet-stream"), data)

    def _stream(self) -> None:
        """Tells the page of jobs as they come, until it has gone."""
        pages = self.server.pages
        session = pages.claim()
        if session is None:
            self._refuse(HTTPStatus.CONFLICT)
            return
        try:
            self.send_response(HTTPStatus.OK)
            self._headers("text/event-stream")
            self._event("session", {"session": session})
            told = None
            while not pages.stopped.is_set():
                job = pages.take()
                if job is not None:
                    told = job
                    self._event("job", job.content)
                elif told is not None and pages.job is not told:
                    told = None
                    self._event("idle", {})
                else:
                    self.wfile.write(b": ping\n\n")
                pages.stopped.wait(PING_S)
            self._event("end", {})
        except OSError:
            pass
        finally:
            self.close_connection = True
            pages.release()

    def _event(self, name: str, content: Mapping[str, Any]) -> None:
        self.wfile.write(f"event: {name}\ndata: {json.dumps(content)}\n\n".encode())

    def _refuse(self, status: HTTPStatus) -> None:
        self.close_connection = True
        self._answer(status, "text/plain", f"{status.value} {status.phrase}\n".encode())

    def _answer(self, status: HTTPStatus, kind: str = "", data: bytes = b"") -> None:
        self.send_response(status)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(data)))
        self._headers(kind)
        self.wfile.write(data)

    def _headers(self, kind: str) -> None:
        if kind:
            self.send_header("Content-Type", f"{kind}; charset=utf-8" if kind.startswith("text/") else kind)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""
