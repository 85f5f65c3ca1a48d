"""A real browser measures; what goes wrong between it and this host has its message."""

from __future__ import annotations

import hashlib
import http.server
import json
import tarfile
import threading
import time
from base64 import b64encode
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import bocr_onnx
from bocr_onnx.api.device import add_device, list_devices
from bocr_onnx.cli.main import app
from bocr_onnx.devices import Request, Web
from bocr_onnx.devices.web import device as web_device
from bocr_onnx.devices.web import ort
from bocr_onnx.devices.web.server import PageServer
from bocr_onnx.errors import DeviceError, UsageError
from tests.devices.conftest import CHROMIUM, Person
from tests.devices.test_contract import FEEDS, SMALL, TEXT, model

DEMO = str(files("bocr_onnx.calibration") / "demo.onnx")
LONG = Request(runs=12_000)
VISIBILITY = """state => {
    Object.defineProperty(document, 'visibilityState', { value: state, configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
}"""


def test_models_are_timed_and_agree_with_this_host(person: Person, tmp_path: Path) -> None:
    slim = tmp_path / "slim.onnx"
    bocr_onnx.prune(DEMO, flops=0.5, search="uniform", history="none", output=slim)
    shown = CliRunner().invoke(app, ["bench", DEMO, str(slim), "--device", "web", "--seconds", "1", "--json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    assert "ONNX Runtime Web in a browser" in found["device"]["build"]
    assert "on the host ONNX Runtime" in found["device"]["build"]
    assert found["device"]["notes"][0].startswith("measured in a browser")
    for row in found["models"]:
        assert row["clock"] == "wall"
        assert row["agreement"]["outputs"][0]["largest_error"] < 1e-3
        assert not row["agreement"]["differs"]
    assert person.said() == []
    assert len(person.urls) == 1  # one page for all of it


def test_scores_come_from_the_browser_too(person: Person) -> None:
    digits = str(files("bocr_onnx.calibration") / "digits.npz")
    asked = ["bench", DEMO, "--device", "web", "--seconds", "0.2", "--data", digits, "--check-images", "20"]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0, shown.output
    assert "top-1 on 20 images" in shown.output
    assert "measured in a browser" in shown.output


def test_a_tab_that_is_closed_keeps_what_was_measured(person: Person) -> None:
    device = Web()

    def close(number: int, _: int) -> None:
        if number == 5:
            person.leave()

    models = [model(TEXT % ((160,) * 4)), model(SMALL)]
    found = device.measure(models, FEEDS, Request(runs=1200), close)
    assert 5 <= found.latencies[0].n_rounds < 12
    assert any("rounds nothing more came" in note for note in found.notes)
    with pytest.raises(DeviceError, match="was lost: the page was closed"):
        device.measure(models, FEEDS, LONG, lambda i, n: person.leave())
    device.close()


def test_a_page_that_is_hidden_gives_no_samples(ort_web: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is told that it is hidden after the second round, and shown again a second later."""
    playwright = pytest.importorskip("playwright.sync_api")
    urls: list[str] = []
    told: list[int] = []
    monkeypatch.setattr(web_device, "_invite", lambda url, address: urls.append(url))
    device, quiet, done = Web(), [], threading.Event()

    def watch() -> None:
        while not urls:
            time.sleep(0.05)
        with playwright.sync_playwright() as started:
            browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page()
            page.goto(urls[0])
            while len(told) < 2:
                page.wait_for_timeout(5)
            page.evaluate(VISIBILITY, "hidden")
            for _ in range(500):
                if page.inner_text("#state").startswith("Hidden: round"):
                    break
                page.wait_for_timeout(20)
            before = len(told)
            page.wait_for_timeout(500)
            quiet.append(len(told) == before < 12)
            page.evaluate(VISIBILITY, "visible")
            done.wait(30)
            browser.close()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        found = device.measure([model(TEXT % ((160,) * 4))], FEEDS, Request(runs=6_000), lambda i, n: told.append(i))
    finally:
        done.set()
        watcher.join()
        device.close()
    assert quiet == [True]
    assert found.latencies[0].n_rounds == 12
    assert any("rounds were measured again" in note for note in found.notes)


def test_an_adapter_in_software_is_refused(ort_web: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = "--enable-unsafe-webgpu --use-webgpu-adapter=swiftshader --enable-features=Vulkan".split()
    person = Person(tmp_path, *options)
    monkeypatch.setattr(web_device, "_invite", person.invited)
    device = Web()
    try:
        with pytest.raises(DeviceError, match="provider webgpu must be a real adapter"):
            device.measure([model(SMALL)], FEEDS, Request(provider="webgpu"))
    finally:
        device.close()
        person.leave()


def test_nobody_opens_the_page(ort_web: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(web_device, "WAIT_S", 0.5)
    device = Web()
    with pytest.raises(DeviceError, match=r"http://127.0.0.1:.* must be opened within 0.5 s"):
        device.check()
    device.close()
    assert "Open this page on the device" in capfd.readouterr().err


def test_a_page_that_never_answers(ort_web: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_device, "SILENT_S", 0.5)
    monkeypatch.setattr(web_device, "_invite", lambda url, address: None)
    monkeypatch.setattr(PageServer, "start", lambda *a, start=PageServer.start: _taken(start(*a)))
    device = Web()
    with pytest.raises(DeviceError, match=r"must report something within 0.5 s"):
        device.check()
    device.close()


def _taken(job):
    job.taken = True
    return job


@pytest.mark.parametrize(
    ("reports", "words"),
    [
        ([{"kind": "done"}], "must say what browser it is"),
        ([{"kind": "machine", "machine": {"agent": "x" * 501}}], "must say what browser it is"),
        ([{"kind": "what"}], "must report what it is asked for, got 'what'"),
        ([{"kind": "error", "text": "RangeError: out of memory"}], "must have memory enough"),
    ],
)
def test_what_is_no_report_is_refused(
    ort_web: Path, monkeypatch: pytest.MonkeyPatch, reports: list, words: str
) -> None:
    def answered(self: PageServer, *args: object, start=PageServer.start):
        job = _taken(start(self, *args))
        for found in reports:
            job.reports.put(found)
        return job

    monkeypatch.setattr(PageServer, "start", answered)
    monkeypatch.setattr(web_device, "_invite", lambda url, address: None)
    device = Web()
    with pytest.raises(DeviceError, match=words):
        device.check()
    with pytest.raises(DeviceError):
        device.measure([model(SMALL)], FEEDS, Request())
    device.close()


def test_a_code_to_scan_is_shown_for_another_machine(capsys: pytest.CaptureFixture) -> None:
    web_device._invite("http://192.0.2.7:8000/abc/", "192.0.2.7")
    shown = capsys.readouterr().err
    assert "http://192.0.2.7:8000/abc/" in shown
    assert "█" in shown or "▄" in shown


def test_what_a_browser_cannot_do_is_said() -> None:
    device = Web()
    with pytest.raises(DeviceError, match="cannot keep to cores"):
        device.measure([model(SMALL)], FEEDS, Request(pin=(0,)))
    with pytest.raises(DeviceError, match="provider CUDAExecutionProvider must be available"):
        device.measure([model(SMALL)], FEEDS, Request(provider="CUDAExecutionProvider"))


def _release(folder: Path, names: tuple[str, ...]) -> bytes:
    for name in names:
        (folder / name).write_bytes(name.encode())
    with tarfile.open(folder / "release.tgz", "w:gz") as archive:
        for name in names:
            archive.add(folder / name, f"package/dist/{name}")
        archive.add(folder / names[0], "../../outside")
    return (folder / "release.tgz").read_bytes()


def test_the_release_is_fetched_once_known_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "served").mkdir()
    content = _release(tmp_path / "served", ort.FILES)
    monkeypatch.setenv(ort.VARIABLE, str(tmp_path / "kept"))
    assert "missing" in list_devices()["web, web://lan"]
    with pytest.raises(DeviceError, match="ONNX Runtime Web must be in") as caught:
        Web().check()
    assert "bocr-onnx device add web" in caught.value.hint
    handler = lambda *a: http.server.SimpleHTTPRequestHandler(*a, directory=str(tmp_path / "served"))  # noqa: E731
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(ort, "URL", f"http://127.0.0.1:{server.server_address[1]}/release.tgz")
        monkeypatch.setattr(ort.fetch, "__defaults__", (ort.URL, ort.INTEGRITY))
        with pytest.raises(UsageError, match="`yes` must be given to fetch"):
            add_device("web")
        with pytest.raises(DeviceError, match=r"must be the release .* got sha512-"):
            add_device("web", yes=True)
        assert not (tmp_path / "kept").exists()
        right = f"sha512-{b64encode(hashlib.sha512(content).digest()).decode()}"
        monkeypatch.setattr(ort.fetch, "__defaults__", (ort.URL, right))
        refused = CliRunner().invoke(app, ["device", "add", "web"], input="n\n")
        assert refused.exit_code == 1
        done = CliRunner().invoke(app, ["device", "add", "web"], input="y\n")
        assert done.exit_code == 0, done.output
        server.shutdown()
    assert ort.read_files(tmp_path / "kept") == {name: name.encode() for name in ort.FILES}
    assert not (tmp_path / "outside").exists()
    assert "a browser opens a page" in list_devices()["web, web://lan"]
    with pytest.raises(DeviceError, match="must be reachable"):
        ort.fetch(ort.URL)


def test_without_a_network_it_comes_from_a_folder_or_an_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dist").mkdir()
    content = _release(tmp_path / "dist", ort.FILES)
    monkeypatch.setenv(ort.VARIABLE, str(tmp_path / "kept"))
    assert add_device("web", ort_web=tmp_path) == tmp_path / "kept"
    assert ort.read_files(tmp_path / "kept")
    with pytest.raises(DeviceError, match="must be the release"):
        add_device("web", ort_web=tmp_path / "dist" / "release.tgz")
    right = f"sha512-{b64encode(hashlib.sha512(content).digest()).decode()}"
    monkeypatch.setattr(ort, "INTEGRITY", right)
    assert add_device("web", ort_web=tmp_path / "dist" / "release.tgz") == tmp_path / "kept"
    with pytest.raises(DeviceError, match="`ort_web` must be a folder or an archive"):
        add_device("web", ort_web=tmp_path / "none")
    with pytest.raises(DeviceError, match="must hold"):
        ort.unpack(b"no archive", tmp_path / "kept")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DeviceError, match="ONNX Runtime Web must be in"):
        add_device("web", ort_web=tmp_path / "empty")


def test_inputs_of_every_type_arrive(person: Person) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    m (uint8[3] a, int64[2, 3] b, bool[3] c, float[3] d) => (float[2, 3] y, int64[2, 3] z) {
        z = Add(b, b)  f = Cast <to = 1> (a)  g = Cast <to = 1> (c)  h = Cast <to = 1> (b)
        i = Add(f, g)  j = Add(i, d)  y = Add(j, h) }"""
    feeds = {
        "a": np.array([1, 2, 255], np.uint8),
        "b": np.array([[1, 2, 3], [4, 5, 2**40]], np.int64),
        "c": np.array([True, False, True]),
        "d": np.array([0.5, 1.5, 2.5], np.float32),
    }
    device = Web()
    batches = {name: np.stack([array, array]) for name, array in feeds.items()}
    ((first, second),) = device.outputs([model(text)], batches, ["y", "z"], Request())
    device.close()
    np.testing.assert_array_equal(first[1], 2 * feeds["b"])
    expected = (feeds["a"].astype(np.float32) + feeds["c"] + feeds["d"] + feeds["b"]).astype(np.float32)
    np.testing.assert_array_equal(second[0], expected)
