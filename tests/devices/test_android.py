"""A phone by cable, through a real adb and a real adb daemon; stand-ins only for what Android has beside it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

import bocr_onnx
from bocr_onnx.api.device import add_device, list_devices
from bocr_onnx.cli.main import app
from bocr_onnx.devices import Android, Request, open_device
from bocr_onnx.devices.android import native
from bocr_onnx.devices.android.adb import Adb, find_phone
from bocr_onnx.devices.android.phone import ask_phone, read_phone
from bocr_onnx.errors import DeviceError, ModelError, UsageError
from tests.devices.conftest import CHROMIUM, QUIET
from tests.devices.phone import ALSO_THERE, BATTERY, FAR, NAMESPACE, PROPERTIES, Phone
from tests.devices.test_contract import FEEDS, SMALL, TEXT, model

pytestmark = pytest.mark.slow

DEMO = str(files("bocr_onnx.calibration") / "demo.onnx")
LONG = Request(runs=1_000_000)


def test_a_pair_has_the_ratio_that_it_has_here(phone: Phone, tmp_path: Path) -> None:
    slim = tmp_path / "slim.onnx"
    bocr_onnx.prune(DEMO, flops=0.5, search="uniform", history="none", output=slim)
    shown = CliRunner().invoke(app, ["bench", DEMO, str(slim), "--device", "android", "--seconds", "2", "--json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    device = found["device"]
    assert device["device"] == "android"
    assert device["system"] == "Android 15"
    assert device["cpu"].startswith("Stand-in, None")
    assert device["battery"] == "Discharging 81 %"
    assert device["onnxruntime"]
    assert "the native runner of phones is experimental" in device["notes"]
    assert "it runs on battery, which may slow it down" in device["notes"]
    here = bocr_onnx.bench([DEMO, slim], seconds=2).speedups[0].value
    assert found["models"][1]["speedup"]["value"] == pytest.approx(here, rel=0.3)
    assert not found["models"][1]["agreement"]["differs"]
    assert found["models"][1]["agreement"]["outputs"][0]["largest_error"] < 1e-4
    assert phone.left() == []


def test_a_phone_that_is_lost_while_it_measures(phone: Phone) -> None:
    device = Android(phone.serial)
    try:
        with pytest.raises(DeviceError, match="was lost while it measured") as caught:
            device.measure([model(SMALL)], FEEDS, LONG, lambda i, n: phone.unplug())
        assert "run it again" in caught.value.hint
        with pytest.raises(DeviceError, match="must be connected"):
            device.check()
    finally:
        phone.boot()
    assert phone.left() == []
    assert device.check().onnxruntime


@pytest.fixture
def second(phone: Phone) -> Iterator[str]:
    """Serial number of the same daemon at another address."""
    subprocess.run(["ip", "-n", NAMESPACE, "addr", "add", f"{ALSO_THERE}/29", "dev", FAR], check=True)
    subprocess.run(["adb", "connect", f"{ALSO_THERE}:5555"], check=True, capture_output=True)
    yield f"{ALSO_THERE}:5555"
    subprocess.run(["adb", "disconnect", f"{ALSO_THERE}:5555"], check=True, capture_output=True)
    subprocess.run(["ip", "-n", NAMESPACE, "addr", "del", f"{ALSO_THERE}/29", "dev", FAR], check=True)


def test_one_of_two_phones_must_be_named(phone: Phone, second: str) -> None:
    with pytest.raises(UsageError, match="must name one of 2 phones: android:"):
        open_device("android")
    assert open_device(f"android:{second}").check().cores >= 1
    with pytest.raises(DeviceError, match=f"phone absent must be connected, there is none; adb knows .*{phone.serial}"):
        open_device("android:absent")


def test_no_phone_no_adb_and_names_of_another_form(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for serial in ("-s", "a b", "a;reboot", "x" * 65):
        with pytest.raises(UsageError, match="`device` must be android or android:SERIAL"):
            Android(serial)
    (tmp_path / "adb").write_text("#!/bin/sh\nprintf 'List of devices attached\\n'\n")
    (tmp_path / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(DeviceError, match="a phone must be connected, there is none") as caught:
        Android()
    assert "USB debugging" in caught.value.hint
    (tmp_path / "adb").write_text("#!/bin/sh\nprintf 'List of devices attached\\nX1\\tunauthorized\\n'\n")
    with pytest.raises(DeviceError, match="phone X1 must allow this host"):
        Android()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(DeviceError, match="adb must be installed"):
        Android()
    assert list_devices()["android[:SERIAL]"] == "missing: the command adb"


def test_an_adb_that_loses_exit_codes_does_no_harm(
    phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "adb").write_text(f'#!/bin/sh\n{shutil.which("adb")} "$@" 2>&1\nexit 0\n')
    (tmp_path / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    device = Android(phone.serial)
    assert device.measure([model(SMALL)], FEEDS, Request(budget_s=0.0)).latencies[0].n_rounds >= 4
    with pytest.raises(ModelError, match="must run the model"):
        device.measure([b"no model"], FEEDS, Request(budget_s=0.0))
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "runner").write_text("#!/bin/sh\nexit 3\n")
    monkeypatch.setenv(native.VARIABLE, str(broken))
    with pytest.raises(DeviceError, match=r"must give a result, got: RC:3"):
        device.measure([model(SMALL)], FEEDS, Request(budget_s=0.0))
    assert phone.left() == []


def test_an_emulator_is_marked(phone: Phone) -> None:
    phone.stand_in("getprop", f"printf '{PROPERTIES}[ro.kernel.qemu]: [1]\n'")
    try:
        found = Android(phone.serial).measure([model(SMALL)], FEEDS, Request(budget_s=0.0))
    finally:
        phone.stand_in("getprop", f"printf '{PROPERTIES}'")
    assert found.machine.emulated
    assert any("is emulated: times mean nothing" in note for note in found.notes)


def test_cores_are_pinned_where_they_are(phone: Phone) -> None:
    device = Android(phone.serial)
    assert device.measure([model(SMALL)], FEEDS, Request(budget_s=0.0, pin=(0,))).latencies[0].n_rounds >= 4
    with pytest.raises(DeviceError, match="cores must be there"):
        device.measure([model(SMALL)], FEEDS, Request(budget_s=0.0, pin=(900,)))


def test_without_a_runner_the_phone_measures_in_its_browser(
    phone: Phone, ort_web: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv(native.VARIABLE, str(tmp_path / "none"))
    profile = phone.folder / "profile"
    phone.stand_in("am", f'TMPDIR=/tmp {CHROMIUM} {" ".join(QUIET)} --user-data-dir={profile} "$5" > /dev/null 2>&1 &')
    device = Android(phone.serial)
    try:
        found = device.measure([model(TEXT % ((160,) * 4))], FEEDS, Request(budget_s=0.2))
        assert found.device == f"android:{phone.serial}"
        assert found.notes[0].startswith("no native runner was added")
        assert "ONNX Runtime Web in a browser" in found.machine.build
        assert found.machine.system == "Android 15"
        assert "keep the page in front" in capfd.readouterr().err
        ((outputs,),) = device.outputs([model(SMALL)], {k: v[None] for k, v in FEEDS.items()}, ["y"], Request())
        np.testing.assert_allclose(outputs[0], FEEDS["x"] * 0.5)
    finally:
        device.close()
        subprocess.run(["pkill", "-f", str(profile)], check=False)
    assert Adb(phone.serial).run("reverse", "--list").strip() == ""


def test_what_a_phone_cannot_take_is_said(phone: Phone) -> None:
    device = Android(phone.serial)
    with pytest.raises(DeviceError, match="provider NnapiExecutionProvider must be available"):
        device.measure([model(SMALL)], FEEDS, Request(provider="NnapiExecutionProvider"))
    with pytest.raises(ModelError, match="must be printable and short"):
        device.outputs([model(SMALL)], {k: v[None] for k, v in FEEDS.items()}, ["y\npin 1"], Request())


def test_what_a_phone_says_is_read(phone: Phone) -> None:
    said = ask_phone(find_phone(phone.serial))
    assert said["properties"] == PROPERTIES
    assert said["battery"] == BATTERY.encode().decode("unicode_escape")
    said |= {"limits": "1700000\n1700000\n2910000\n", "clock": "300000\n2910000\n", "thermal": "41000\n38500\n-1\n"}
    said |= {"cpuinfo": "processor: 0\nFeatures\t: fp asimd asimddp i8mm\n", "memory": "MemTotal: 8000 kB\n"}
    found = read_phone(said, "1.32.0", "x")
    assert found.cpu == "Stand-in, None, 2 cores of 1.70 GHz, 1 cores of 2.91 GHz"
    assert (found.clock_mhz, found.temperature_c) == (2910.0, 41.0)
    assert found.flags == ("asimd", "asimddp", "i8mm")
    assert found.memory_bytes == 8000 * 1024
    empty = read_phone(dict.fromkeys(said, "gibberish"), "", "")
    assert empty.cores == 1
    assert empty.battery == ""


def test_a_runner_is_built_or_taken(
    native_runner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phone: Phone
) -> None:
    kept = tmp_path / "kept"
    monkeypatch.setenv(native.VARIABLE, str(kept))
    assert "the phone's browser" in list_devices()["android[:SERIAL]"]
    archive = native_runner.parent / "onnxruntime.aar"
    with pytest.raises(UsageError, match="one of `aar` and `runner` must be given"):
        add_device("android")
    with pytest.raises(DeviceError, match=r"must hold jni/arm64-v8a/libonnxruntime.so and onnxruntime_c_api.h"):
        add_device("android", aar=archive)
    with pytest.raises(DeviceError, match="compiler no-such-compiler must be in PATH"):
        add_device("android", aar=archive, abi="x86_64", compiler="no-such-compiler")
    with pytest.raises(DeviceError, match="false must build the runner"):
        add_device("android", aar=archive, abi="x86_64", compiler="false")
    (tmp_path / "bad.aar").write_bytes(b"no archive")
    with pytest.raises(DeviceError, match="`aar` must be an archive of ONNX Runtime"):
        add_device("android", aar=tmp_path / "bad.aar")
    with zipfile.ZipFile(tmp_path / "evil.aar", "w") as evil:
        evil.writestr("jni/x86_64/libonnxruntime.so", b"")
        evil.writestr("headers/onnxruntime_c_api.h", "#error evil")
        evil.writestr("headers/../../../onnxruntime_evil.h", "")
    with pytest.raises(DeviceError, match="gcc must build the runner, got:"):
        add_device("android", aar=tmp_path / "evil.aar", abi="x86_64", compiler="gcc")
    assert not (tmp_path.parent / "onnxruntime_evil.h").exists()
    assert not kept.exists()
    with pytest.raises(DeviceError, match="`runner` must be a folder"):
        add_device("android", runner=tmp_path)
    assert add_device("android", runner=native_runner) == kept
    assert {p.name for p in native.native_files(kept)} == {"runner", "libonnxruntime.so"}
    assert "a native runner" in list_devices()["android[:SERIAL]"]


@pytest.mark.parametrize("threads", [1, 2])
def test_outputs_of_every_type_come_back(phone: Phone, threads: int) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    m (uint8[3] a, int64[2, 3] b, bool[3] c, float[3] d) => (float[2, 3] y, int64[2, 3] z, bool[3] e, uint8[3] u) {
        z = Add(b, b)  f = Cast <to = 1> (a)  g = Cast <to = 1> (c)  h = Cast <to = 1> (b)
        i = Add(f, g)  j = Add(i, d)  y = Add(j, h)  e = Not(c)  u = Identity(a) }"""
    feeds = {
        "a": np.array([1, 2, 255], np.uint8),
        "b": np.array([[1, 2, 3], [4, 5, 2**40]], np.int64),
        "c": np.array([True, False, True]),
        "d": np.array([0.5, 1.5, 2.5], np.float32),
    }
    onnx.checker.check_model(onnx.load_from_string(model(text)))
    batches = {name: np.stack([array, array]) for name, array in feeds.items()}
    names = ["y", "z", "e", "u"]
    ((_, found),) = Android(phone.serial).outputs([model(text)], batches, names, Request(threads=threads))
    expected = (feeds["a"].astype(np.float32) + feeds["c"] + feeds["d"] + feeds["b"]).astype(np.float32)
    for one, right in zip(found, (expected, 2 * feeds["b"], ~feeds["c"], feeds["a"]), strict=True):
        assert one.dtype == right.dtype
        np.testing.assert_array_equal(one, right)
