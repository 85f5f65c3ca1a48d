"""`quantize`: the score is kept, the file is smaller, and the float model stays where int8 costs too much."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import bocr_onnx
from bocr_onnx.devices.host import Host
from bocr_onnx.errors import BudgetError, UsageError
from bocr_onnx.pipeline import quantize as stage

pytestmark = pytest.mark.slow

DEMO = str(files("bocr_onnx.calibration") / "demo.onnx")
DIGITS = str(files("bocr_onnx.calibration") / "digits.npz")
FEW: dict[str, Any] = {"data": DIGITS, "score_images": 200, "final_images": 300, "calibration_images": 30}


def test_the_int8_file_is_what_the_result_says(tmp_path: Path) -> None:
    found = bocr_onnx.quantize(DEMO, output=tmp_path / "q.onnx", **FEW)
    assert found.sizes_bytes == (Path(DEMO).stat().st_size, (tmp_path / "q.onnx").stat().st_size)
    assert found.sizes_bytes[1] < 0.4 * found.sizes_bytes[0]
    assert found.after > found.before - 0.01
    assert found.n_images == 300
    assert found.made["activations"] in ("uint8", "int8")
    assert found.made["score_after"] >= found.made["score_before"] - 0.01
    checked = bocr_onnx.check(str(tmp_path / "q.onnx"), against=DEMO, data=DIGITS, max_drop=1, max_size=0.4)
    assert checked.verdict == "passed"
    assert json.loads(json.dumps(found.as_json()))["speedup"]["low"] <= found.speedup.value


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_a_type_that_is_named_is_taken(kind: str, tmp_path: Path) -> None:
    found = bocr_onnx.quantize(DEMO, activations=kind, output=tmp_path / "q.onnx", **FEW)
    assert found.made["activations"] == kind


def test_the_faster_type_on_the_device_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is told apart by nothing but its times: whichever type it runs faster is the one that is written."""
    measure = Host.measure

    def biased(slow: str) -> Any:
        def measured(self: Host, models: Any, *rest: Any) -> Any:
            found = measure(self, models, *rest)
            latencies = []
            for model, one in zip(models, found.latencies, strict=True):
                zeros = {t.data_type for t in onnx.load_from_string(model).graph.initializer if "zero_point" in t.name}
                kind = "uint8" if onnx.TensorProto.UINT8 in zeros else "int8"
                times = tuple(1000 * t if kind == slow else t for t in one.wall_ms)
                latencies.append(
                    type(one)(**{f: getattr(one, f) for f in one.__slots__} | {"wall_ms": times, "cpu_ms": times})
                )
            return type(found)(**{f: getattr(found, f) for f in found.__slots__} | {"latencies": tuple(latencies)})

        return measured

    for slow, kept in (("uint8", "int8"), ("int8", "uint8")):
        monkeypatch.setattr(Host, "measure", biased(slow))
        assert bocr_onnx.quantize(DEMO, output=tmp_path / "q.onnx", **FEW).made["activations"] == kept


def ruined(tmp_path: Path) -> Path:
    """Returns the demo with one channel of some maps thousands of times the others, and read at as small a weight."""
    model = onnx.load(DEMO)
    tensors, factor = {t.name: t for t in model.graph.initializer}, np.float32(5_000)
    readers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def scaled(name: str, at: Any, by: np.float32) -> None:
        array = onnx.numpy_helper.to_array(tensors[name]).copy()
        array[at] *= by
        tensors[name].CopyFrom(onnx.numpy_helper.from_array(array, name))

    n_ruined = 0
    for norm in model.graph.node:
        chain = readers.get(norm.output[0], [])
        if norm.op_type != "BatchNormalization" or [node.op_type for node in chain] != ["Relu"]:
            continue
        after = readers[chain[0].output[0]]
        if [node.op_type for node in after] == ["Conv"]:
            for name in norm.input[1:3]:
                scaled(name, 0, factor)
            scaled(after[0].input[1], (slice(None), 0), 1 / factor)
            n_ruined += 1
    assert n_ruined
    onnx.save(model, tmp_path / "ruined.onnx")
    return tmp_path / "ruined.onnx"


def test_costly_operators_go_back_to_float_until_the_score_is_kept(tmp_path: Path) -> None:
    path = ruined(tmp_path)
    loose = bocr_onnx.quantize(path, max_drop=99, output=tmp_path / "loose.onnx", **FEW)
    assert loose.made["score_after"] < loose.made["score_before"] - 0.05, "the fixture must lose something"
    kept = bocr_onnx.quantize(path, max_drop=1, output=tmp_path / "kept.onnx", **FEW)
    assert kept.made["score_after"] >= kept.made["score_before"] - 0.01
    assert len(kept.made["left_in_float"]) > len(loose.made["left_in_float"])
    assert kept.after > loose.after


def test_the_float_model_stays_where_int8_costs_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "SHARES", (0.01,))
    monkeypatch.setattr(stage, "costly", lambda ready, proto, feeds: ("nothing",))
    with pytest.raises(BudgetError, match="float model stays"):
        bocr_onnx.quantize(ruined(tmp_path), max_drop=0.5, output=tmp_path / "q.onnx", **FEW)
    assert not (tmp_path / "q.onnx").exists()


@pytest.mark.parametrize(
    ("architecture", "flags", "expected"),
    [("x86_64", ("avx2",), True), ("x86_64", ("avx2", "avx_vnni"), False), ("aarch64", (), False),
     ("AMD64", ("avx512_vnni",), False)],
)  # fmt: skip
def test_weights_are_narrow_on_x86_without_vnni(architecture: str, flags: Any, expected: bool) -> None:
    machine = Host().check()
    other = type(machine)(
        **{f: getattr(machine, f) for f in machine.__slots__} | {"architecture": architecture, "flags": flags}
    )
    assert stage.saturates(other) == expected


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        bocr_onnx.quantize(DEMO, activations="float16", **FEW)
    with pytest.raises(UsageError, match="must not be a file that is read"):
        bocr_onnx.quantize(DEMO, output=DEMO, **FEW)
    command = [sys.executable, "-c", "from bocr_onnx.cli.main import run; run()", "quantize", DEMO]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "--data" in found.stderr


def test_the_command_prints_a_table_or_json(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from bocr_onnx.cli.main import run; run()", "quantize", DEMO, "--data", DIGITS]
    command += ["--activations", "uint8", "--score-images", "100", "-o", str(tmp_path / "q.onnx"), "-q"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "top-1, 597 images" in shown.stdout
    assert "uint8 activations" in shown.stdout
    found = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert json.loads(found.stdout)["output"] == str(tmp_path / "q.onnx")


# prune --int8

GIVEN: dict[str, Any] = {"flops": 0.5, "search": "uniform", "recover": "oneshot", "history": "none", "data": DIGITS,
                         "score_images": 200, "recovery_images": 150, "final_images": 300}  # fmt: skip


def test_prune_writes_and_reports_the_third_stage(tmp_path: Path) -> None:
    report = bocr_onnx.prune(DEMO, int8=True, output=tmp_path / "s.onnx", **GIVEN)
    path, found = tmp_path / "s_int8.onnx", report.int8
    assert found["output"] == str(path)
    assert found["size_bytes"] == path.stat().st_size < 0.5 * report.result.size_bytes
    assert found["accuracy"] >= (report.result.accuracy or 0) - 0.03
    assert found["latency_ms"] == report.latency["int8_median_ms"] > 0
    assert found["speedup"]["low"] <= found["speedup"]["value"]
    text = (tmp_path / "s.run" / "report.md").read_text()
    assert "| | original | slim | slim, int8 |" in text
    assert f"{path.stat().st_size / 1e6:.2f} MB" in text
    assert json.loads((tmp_path / "s.run" / "report.json").read_text())["int8"]["output"] == str(path)
    assert not report.missed


def test_a_slim_model_that_int8_ruins_stays_in_float_and_the_report_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "SHARES", ())
    monkeypatch.setattr(stage.Judge, "score", lambda self, model: 1.0 if "Quantize" not in str(model) else 0.5)
    report = bocr_onnx.prune(DEMO, int8=True, output=tmp_path / "s.onnx", **GIVEN)
    assert (tmp_path / "s.onnx").exists()
    assert not (tmp_path / "s_int8.onnx").exists()
    assert report.int8 == {}
    assert any(text.startswith("--int8: int8 must keep the score within 1 points") for text in report.missed)


def test_int8_needs_images_and_a_file_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="images to calibrate"):
        bocr_onnx.prune(DEMO, flops=0.5, search="uniform", int8=True, output=tmp_path / "s.onnx")
    (tmp_path / "s_int8.onnx").write_bytes(Path(DEMO).read_bytes())
    with pytest.raises(UsageError, match="must not be a file that is read"):
        bocr_onnx.prune(tmp_path / "s_int8.onnx", int8=True, output=tmp_path / "s.onnx", **GIVEN)
