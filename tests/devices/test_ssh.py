"""What can go wrong between two machines: each has its message, and nothing is left over there."""

from __future__ import annotations

import json
import os
import signal
import site
import subprocess
import sys
import time
import zipfile
from importlib.resources import files
from pathlib import Path
from threading import Thread

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

import bocr_onnx
from bocr_onnx.api.device import check_device
from bocr_onnx.cli.main import app
from bocr_onnx.devices import Request, Ssh, open_device
from bocr_onnx.errors import DeviceError, UsageError
from bocr_onnx.report import markdown
from tests.devices.conftest import Server, free_port, known_options, make_ssh, start
from tests.devices.test_contract import FEEDS, SMALL, model

pytestmark = pytest.mark.slow

LONG = Request(runs=12_000_000)


def use(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def leftovers(server: Server) -> list[Path]:
    """Returns what lies in the temporary folder of the other side, after some time to clean up."""
    for _ in range(100):
        if not (found := list((server.folder / "tmp").iterdir())):
            return []
        time.sleep(0.1)
    return found


def test_a_search_reports_the_latency_of_the_device(reached: Server, tmp_path: Path) -> None:
    demo = str(files("bocr_onnx.calibration") / "demo.onnx")
    options = {"flops": 0.5, "search": "uniform", "history": "none", "output": tmp_path / "slim.onnx"}
    report = bocr_onnx.prune(demo, device=reached.device, **options)
    assert report.latency["device"]["device"] == reached.device
    assert report.latency["speedup"]["low"] < report.latency["speedup"]["high"]
    (tmp_path / "slim.onnx").unlink()
    with pytest.raises(DeviceError, match="must be reachable"):
        bocr_onnx.prune(demo, device=f"ssh://127.0.0.1:{free_port()}", **options, run_dir=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_device_that_is_lost_costs_no_search(
    reached: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fragile = tmp_path / "bin"
    fragile.mkdir()
    (fragile / "ssh").write_text(
        f'#!/bin/sh\nif [ -e {tmp_path / "once"} ]; then echo "closed by remote host" >&2; exit 255; fi\n'
        f'touch {tmp_path / "once"}\nexec {reached.bin / "ssh"} "$@"\n'
    )
    (fragile / "ssh").chmod(0o755)
    use(monkeypatch, fragile)
    demo, slim = str(files("bocr_onnx.calibration") / "demo.onnx"), tmp_path / "slim.onnx"
    with pytest.raises(DeviceError, match="was lost while it measured, got: closed by remote host"):
        bocr_onnx.prune(demo, flops=0.5, search="uniform", history="none", output=slim, device=reached.device)
    assert slim.exists()
    (fragile / "ssh").unlink()
    report = bocr_onnx.prune(demo, flops=0.5, resume=tmp_path / "slim.run")
    assert report.latency["device"]["device"] == reached.device


def test_a_report_tells_the_score_on_the_device(reached: Server, tmp_path: Path) -> None:
    given = {
        "flops": 0.5,
        "search": "uniform",
        "history": "none",
        "data": str(files("bocr_onnx.calibration") / "digits.npz"),
    }
    given |= {"score_images": 50, "recovery_images": 50, "final_images": 50, "recover": "none", "check_images": 20}
    report = bocr_onnx.prune(
        str(files("bocr_onnx.calibration") / "demo.onnx"), output=tmp_path / "slim.onnx", device=reached.device, **given
    )
    pair = report.latency["agreement"]
    assert pair["baseline"]["n_images"] == 20
    assert pair["result"]["here"] == pair["result"]["there"]
    assert f"{report.metric} on {reached.device}, 20 images" in markdown(report)
    assert "differ from those on this host" not in markdown(report)
    pair["result"]["differs"] = True
    assert f"The outputs of the slim model on {reached.device} differ" in markdown(report)


def test_the_command_line_says_what_a_device_is(reached: Server) -> None:
    shown = CliRunner().invoke(app, ["device", "check", reached.device, "--json"])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["channel_grid"] >= 1
    assert "ssh://USER@HOST" in CliRunner().invoke(app, ["device", "list"]).output


def test_nothing_stays_on_the_server(reached: Server) -> None:
    open_device(reached.device).measure([model(SMALL)], FEEDS, Request(budget_s=0.0, details=True))
    assert leftovers(reached) == []


def test_an_unknown_host_key_is_not_accepted(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "none").touch()
    options = known_options(server.folder)[1:]
    use(monkeypatch, make_ssh(tmp_path / "bin", f"UserKnownHostsFile {tmp_path / 'none'}", *options))
    with pytest.raises(DeviceError, match="must have the host key that ssh knows of it") as caught:
        open_device(server.device).check()
    assert "Connect by hand once" in caught.value.hint
    assert (tmp_path / "none").read_text() == ""


def test_a_changed_host_key_is_not_accepted(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = (server.folder / "stranger.pub").read_text().split()[:2]
    (tmp_path / "known").write_text(f"[127.0.0.1]:{server.port} {' '.join(other)}\n")
    options = known_options(server.folder)[1:]
    use(monkeypatch, make_ssh(tmp_path / "bin", f"UserKnownHostsFile {tmp_path / 'known'}", *options))
    with pytest.raises(DeviceError, match="must have the host key that ssh knows of it"):
        open_device(server.device).check()


def test_a_password_is_never_asked_for(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, make_ssh(tmp_path / "bin", *known_options(server.folder, user="stranger")))
    with pytest.raises(DeviceError, match="must let you in by a key, without a password") as caught:
        open_device(server.device).check()
    assert "ssh-copy-id" in caught.value.hint


def test_nobody_listens(reached: Server) -> None:
    with pytest.raises(DeviceError, match=r"must be reachable, got: .*[Cc]onnection refused"):
        open_device(f"ssh://127.0.0.1:{free_port()}").check()
    with pytest.raises(DeviceError, match=r"must be reachable, got: .*[Cc]ould not resolve"):
        open_device("ssh://no-such-host.invalid").check()


@pytest.mark.usefixtures("server")  # which skips where there is no sshd
def test_a_machine_without_onnxruntime_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    fake = tmp_path / "python"
    fake.mkdir()
    real = sys.executable
    (fake / "python3").write_text(f'#!/bin/sh\nexec {real} -S -I "$@"\n')  # without any package
    (fake / "python3").chmod(0o755)
    process, bare = start(tmp_path / "there", f"{fake}:/usr/bin:/bin")
    try:
        use(monkeypatch, bare.bin)
        with pytest.raises(DeviceError, match=r"must have (numpy|onnxruntime) for .*python3?, it is missing") as caught:
            open_device(bare.device).check()
        assert "pip install onnxruntime numpy" in caught.value.hint
        (fake / "python3").unlink()
        (fake / "python3").write_text("#!/bin/sh\nexit 127\n")
        (fake / "python3").chmod(0o755)
        with pytest.raises(DeviceError, match="must have python3"):
            open_device(bare.device).check()
        assert leftovers(bare) == []
    finally:
        process.terminate()
        process.wait()


def make_wheel(folder: Path, name: str) -> None:
    """Writes a wheel of a name that leads to the package that is installed here: installing needs no network."""
    where = site.getsitepackages()[0]
    info = f"{name}-99.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-99.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}_here.pth", where)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 99.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.mark.usefixtures("server")  # which skips where there is no sshd
def test_what_is_missing_is_installed_into_an_environment_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("there", "python", "wheels"):
        (tmp_path / folder).mkdir()
    fake = tmp_path / "python" / "python3"
    fake.write_text(f'#!/bin/sh\nexec {sys._base_executable} -S -I "$@"\n')  # type: ignore[attr-defined]
    fake.chmod(0o755)
    path, wheels = f"{fake.parent}:/usr/bin:/bin", str(tmp_path / "wheels")
    process, bare = start(
        tmp_path / "there", path, PIP_NO_INDEX="1", PIP_FIND_LINKS=wheels, PIP_CONFIG_FILE="/dev/null"
    )
    try:
        use(monkeypatch, bare.bin)
        asked = ["device", "check", bare.device, "--json"]
        with pytest.raises(DeviceError, match="it is missing") as caught:
            check_device(bare.device)
        assert f"bocr-onnx device check {bare.device} --install" in caught.value.hint
        with pytest.raises(DeviceError, match="must be able to install onnxruntime, got: ERROR: No matching"):
            check_device(bare.device, install=True)
        for name in ("onnxruntime", "numpy"):
            make_wheel(tmp_path / "wheels", name)
        done = CliRunner().invoke(app, [*asked, "--install", "--quiet"])
        assert done.exit_code == 0, done.stderr
        assert done.stderr == ""
        assert json.loads(done.stdout)["onnxruntime"]
        assert (bare.folder / ".cache/bocr-onnx/venv/bin/python3").exists()
        assert leftovers(bare) == []
    finally:
        process.terminate()
        process.wait()
    with pytest.raises(DeviceError, match="must be reachable"):
        Ssh(f"127.0.0.1:{bare.port}").install()
    with pytest.raises(UsageError, match="`install` needs a device"):
        check_device("host", install=True)


def sessions(server: Server) -> list[int]:
    """Returns the processes that serve connections."""
    listing = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listing.splitlines()[1:]]
    first = {int((server.folder / "pid").read_text())}
    return [int(pid) for pid, parent, _ in rows if int(parent) in first]


def test_a_connection_that_is_lost_leaves_nothing(reached: Server) -> None:
    def cut(_: int, __: int) -> None:
        for pid in sessions(reached):
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(DeviceError, match="was lost while it measured"):
        open_device(reached.device).measure([model(SMALL)], FEEDS, LONG, cut)
    assert leftovers(reached) == []


def test_who_stops_waiting_leaves_nothing(reached: Server) -> None:
    device = open_device(reached.device)
    timer = Thread(target=lambda: (time.sleep(3), os.kill(os.getpid(), signal.SIGINT)))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        device.measure([model(SMALL)], FEEDS, LONG)
    timer.join()
    assert leftovers(reached) == []


def test_what_is_no_result_is_refused(reached: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text, words in (
        ("hello", "was lost"),
        ("<<<bocr-onnx\n{\nbocr-onnx>>>", "must give a whole result"),
        ("<<<bocr-onnx\n[]\nbocr-onnx>>>", "must give a whole result, got list"),
        ('<<<bocr-onnx\n{"machine": 5}\nbocr-onnx>>>', "must give a whole result, got machine"),
        ('<<<bocr-onnx\n{"error": "RuntimeError: bad_alloc"}\nbocr-onnx>>>', "must have memory enough for the model"),
    ):
        (tmp_path / "ssh").write_text(f"#!/bin/sh\nhead -c 512 > /dev/null\ncat <<'X'\n{text}\nX\n")
        (tmp_path / "ssh").chmod(0o755)
        use(monkeypatch, tmp_path)
        with pytest.raises(DeviceError, match=words):
            open_device(reached.device).measure([model(SMALL)], FEEDS, Request(budget_s=0.0))


def test_the_same_pair_has_the_same_ratio_here_and_there(reached: Server, tmp_path: Path) -> None:
    body = " ".join(f"c{i + 1} = Conv <pads = [1, 1, 1, 1]> (c{i}, w)" for i in range(4))
    for name, width in (("a", 32), ("b", 16)):
        text = f"""<ir_version: 8, opset_import: ["" : 17]>
            m (float[1, 3, 48, 48] x) => (float[1, {width}, 48, 48] c4) {{
                c0 = Conv <pads = [1, 1, 1, 1]> (x, v) {body} }}"""
        made = onnx.parser.parse_model(text)
        for constant, shape in (("v", (width, 3, 3, 3)), ("w", (width, width, 3, 3))):
            array = np.random.default_rng(0).standard_normal(shape).astype(np.float32) * 0.05
            made.graph.initializer.append(onnx.numpy_helper.from_array(array, constant))
        onnx.save(made, tmp_path / f"{name}.onnx")
    files = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    here, there = (bocr_onnx.bench(files, device=d, seconds=4).speedups[0] for d in ("host", reached.device))
    assert here.value > 1.5
    assert there.value == pytest.approx(here.value, rel=0.3)  # other tests take their share of both
