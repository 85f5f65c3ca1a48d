"""`mobile` and `--emit ort`: the file computes the same and names no place of this machine; what phones run is told."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import bocr_onnx
from bocr_onnx.errors import ModelError, UsageError
from bocr_onnx.pipeline import mobile as stage
from tests.oracle import build

DEMO = str(files("bocr_onnx.calibration") / "demo.onnx")
DIGITS = str(files("bocr_onnx.calibration") / "digits.npz")


def run_ort(path: str, feed: dict[str, Any]) -> list[Any]:
    return onnxruntime.InferenceSession(path).run(None, feed)


def test_the_ort_file_computes_what_the_model_does(tmp_path: Path) -> None:
    found = bocr_onnx.mobile(DEMO, output=tmp_path / "out")
    feed = {"input": np.random.default_rng(0).random((1, 1, 8, 8)).astype(np.float32)}
    (x,), (y,) = run_ort(DEMO, feed), run_ort(found.ort, feed)
    np.testing.assert_allclose(x, y, atol=1e-5)
    assert found.largest_error < 1e-5
    assert found.shapes == {"input": (1, 1, 8, 8)}
    assert found.size_bytes == Path(found.ort).stat().st_size
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"demo.ort", "demo.required_operators.config"}


def test_the_list_of_operators_names_no_place_of_this_machine(tmp_path: Path) -> None:
    text = Path(bocr_onnx.mobile(DEMO, output=tmp_path).operators).read_text()
    assert "# - demo.ort\n" in text
    assert "/" not in text.replace("model/s", "")
    assert "Conv" in text


def test_open_sizes_are_fixed_or_left(tmp_path: Path) -> None:
    fixed, left = (bocr_onnx.mobile(DEMO, output=tmp_path / str(f), fix_shape=f) for f in (True, False))
    shapes = [onnxruntime.InferenceSession(one.ort).get_inputs()[0].shape for one in (fixed, left)]
    assert shapes[0] == [1, 1, 8, 8]
    assert not isinstance(shapes[1][0], int)
    assert left.shapes == {}
    assert left.partitions[0].n_open > 0
    assert left.partitions[0].verdict == "no"
    assert fixed.partitions[0].n_open == 0


def test_a_size_that_is_named_is_the_one_that_is_fixed(tmp_path: Path) -> None:
    graph = build("m (float[N, 3, H, W] x) => (float[N, 4, H, W] y) { y = Conv(x, w) }", w=(4, 3, 1, 1))
    found = bocr_onnx.mobile(graph.proto, input_shapes={"x": (1, 3, 20, 24)}, output=tmp_path)
    assert found.shapes == {"x": (1, 3, 20, 24)}
    assert onnxruntime.InferenceSession(found.ort).get_inputs()[0].shape == [1, 3, 20, 24]


def test_what_an_accelerator_does_not_take_is_named(tmp_path: Path) -> None:
    text = """m (float[N, 4, 8, 8] x) => (float[N, 4, 8, 8] y) {
        a = Conv(x, w) b = Erf(a) c = Conv(b, v) d = Relu(c) y = Conv(d, u) }"""
    graph = build(text, w=(4, 4, 1, 1), v=(4, 4, 1, 1), u=(4, 4, 1, 1))
    nnapi, coreml = bocr_onnx.mobile(graph.proto, output=tmp_path).partitions
    assert (nnapi.provider, coreml.provider) == ("NNAPI", "CoreML")
    assert nnapi.blocked_by == ("Erf",)
    assert (nnapi.n_nodes, nnapi.n_supported, nnapi.n_partitions) == (5, 4, 2)


def test_a_file_that_computes_something_else_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_session = stage.run_session
    monkeypatch.setattr(stage, "run_session", lambda *args: [array * 1.01 for array in run_session(*args)])
    with pytest.raises(ModelError, match="within 1e-05"):
        bocr_onnx.mobile(DEMO, output=tmp_path)


def test_bad_places(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="must be a folder"):
        bocr_onnx.mobile(DEMO, output=tmp_path / "file")
    with pytest.raises(UsageError, match="`output` must be given"):
        bocr_onnx.mobile(onnx.load(DEMO))


@pytest.mark.parametrize("int8", [False, True])
def test_prune_emits_the_slim_model_for_phones(int8: bool, tmp_path: Path) -> None:
    report = bocr_onnx.prune(
        DEMO, flops=0.5, search="uniform", recover="oneshot", history="none", data=DIGITS, score_images=200,
        recovery_images=150, final_images=200, emit="ort", int8=int8, output=tmp_path / "s.onnx",
    )  # fmt: skip
    name = "s_int8" if int8 else "s"
    assert report.mobile["ort"] == str(tmp_path / "s.mobile" / f"{name}.ort")
    feed = {"input": np.random.default_rng(0).random((1, 1, 8, 8)).astype(np.float32)}
    (x,), (y,) = run_ort(str(tmp_path / f"{name}.onnx"), feed), run_ort(report.mobile["ort"], feed)
    np.testing.assert_allclose(x, y, atol=1e-4)
    assert "For phones" in (tmp_path / "s.run" / "report.md").read_text()


def test_the_command_prints_a_table_or_json(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from bocr_onnx.cli.main import run; run()", "mobile", DEMO, "-o", str(tmp_path)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "NNAPI" in shown.stdout
    assert "Converting models" not in shown.stdout
    record = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout)
    assert record["partitions"][1]["provider"] == "CoreML"
