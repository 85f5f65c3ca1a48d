"""The server of the page: nobody but one page gets anything but what it needs."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from queue import Empty

import pytest

from bocr_onnx.devices.web.server import HEADERS, PageServer
from bocr_onnx.errors import DeviceError

FILES = {"": b"<p>page", "page.js": b"1", "ort/a.wasm": b"\0asm"}


@pytest.fixture
def server() -> Iterator[PageServer]:
    made = PageServer("127.0.0.1", 0, FILES, ("localhost",))
    yield made
    made.close()


class Page:
    """A page that is connected."""

    def __init__(self, server: PageServer) -> None:
        self.server = server
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=5)
        ask = f"GET /{server.token}/jobs HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n"
        self.socket.sendall(ask.encode())
        self.stream = self.socket.makefile("rb")
        self.status = int(self.stream.readline().split()[1])
        while self.stream.readline() not in (b"\r\n", b""):
            pass
        self.session = self.event()[1]["session"] if self.status == 200 else ""

    def event(self) -> tuple[str, dict]:
        while not (line := self.stream.readline()).startswith(b"event:"):
            assert line, "the stream has ended"
        return line.split()[1].decode(), json.loads(self.stream.readline().partition(b":")[2])

    def close(self) -> None:
        self.stream.close()
        self.socket.close()


@pytest.fixture
def page(server: PageServer) -> Iterator[Page]:
    made = Page(server)
    yield made
    made.close()


def ask(
    server: PageServer, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, bytes, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    with contextlib.closing(connection):
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())


def report(page: Page, body: bytes, **headers: str) -> int:
    server = page.server
    return ask(server, "POST", f"/{server.token}/report", body, **{"X_Session": page.session} | headers)[0]


def test_files_come_with_headers_that_shut_others_out(server: PageServer) -> None:
    status, body, headers = ask(server, "GET", f"/{server.token}/")
    assert (status, body) == (200, b"<p>page")
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert HEADERS.items() <= headers.items()
    assert ask(server, "GET", f"/{server.token}/ort/a.wasm")[2]["Content-Type"] == "application/wasm"
    assert len(server.token) >= 22


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/{token}",  # no relative path of the page would work
        "/{wrong}/",
        "/{token}x/",
        "/{token}/../{token}/page.js",
        "/{token}/%2e%2e/server.py",
        "/{token}/..%2fserver.py",
        "/{token}//etc/passwd",
        "/{token}/page.js?x=1",
        "/{token}/job/0.onnx",
        "/page.js",
    ],
)
def test_nothing_else_is_served(server: PageServer, path: str) -> None:
    asked = path.format(token=server.token, wrong="A" * len(server.token))
    status, body, _ = ask(server, "GET", asked)
    assert status == 404
    assert body == b"404 Not Found\n"


def test_another_host_name_gets_nothing(server: PageServer) -> None:
    path = f"/{server.token}/"
    for name in ("evil.example", f"evil.example:{server.port}", "127.0.0.1", ""):
        assert ask(server, "GET", path, Host=name)[0] == 404
    assert ask(server, "GET", path, Host=f"localhost:{server.port}")[0] == 200


def test_other_methods_are_refused(server: PageServer) -> None:
    for method in ("PUT", "DELETE", "OPTIONS", "TRACE"):
        assert ask(server, method, f"/{server.token}/")[0] == 501


def test_a_second_page_is_refused_until_the_first_has_gone(server: PageServer, page: Page) -> None:
    other = Page(server)
    assert other.status == 409
    other.close()
    page.close()
    for _ in range(50):
        third = Page(server)
        if third.status == 200:
            break
        third.close()
        time.sleep(0.1)
    assert third.session not in ("", page.session)
    third.close()


def test_a_job_is_told_served_and_reported_on(server: PageServer, page: Page) -> None:
    job = server.start({"task": "x"}, {"0.onnx": b"model"})
    assert page.event() == ("job", {"task": "x", "job": 1})
    assert ask(server, "GET", f"/{server.token}/job/0.onnx")[1] == b"model"
    assert report(page, b'{"job": 1, "kind": "round"}') == 204
    assert job.reports.get(timeout=1) == {"job": 1, "kind": "round"}
    server.end()
    assert page.event()[0] == "idle"
    assert ask(server, "GET", f"/{server.token}/job/0.onnx")[0] == 404
    assert report(page, b'{"job": 1}') == 413


def test_reports_of_others_and_of_another_form_are_refused(server: PageServer, page: Page) -> None:
    job = server.start({}, {}, max_bytes=100)
    page.event()
    assert report(page, b'{"job": 1}', X_Session="guessed") == 403
    assert ask(server, "POST", f"/{server.token}/report", b'{"job": 1}')[0] == 403
    assert ask(server, "POST", f"/{server.token}/other", b"{}", X_Session=page.session)[0] == 403
    assert report(page, b"x" * 101) == 413
    assert report(page, b"{}", Content_Length="-1") == 411
    assert report(page, b"{}", Content_Length="²") == 411
    for body in (b"{", b"[]", b"null", b'{"job": 2}', b"[" * 99, b"\xff"):
        assert report(page, body) == 400
    with pytest.raises(Empty):
        job.reports.get_nowait()
    assert report(page, b'{"job": 1}') == 204


def test_a_page_that_goes_is_noticed(server: PageServer, page: Page) -> None:
    job = server.start({}, {})
    page.event()
    page.close()
    assert job.reports.get(timeout=5) == {"kind": "lost"}
    assert not server.connected


def test_the_end_is_told(server: PageServer, page: Page) -> None:
    server.close()
    assert page.event()[0] == "end"
    with pytest.raises(ConnectionRefusedError):
        ask(server, "GET", "/")


def test_an_address_of_another_machine_cannot_be_listened_on() -> None:
    with pytest.raises(DeviceError, match="must be able to listen on"):
        PageServer("192.0.2.1", 0, FILES)
