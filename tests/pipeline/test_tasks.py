"""Models that are no classifiers go the whole way: searched, recovered, scored, reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import bocr_onnx
from bocr_onnx.errors import DataError
from bocr_onnx.report import markdown, quality_text
from tests.oracle import proto

BODY = """a = Conv <pads = [1, 1, 1, 1]> (x, w0) ar = Relu(a) b = Conv <pads = [1, 1, 1, 1]> (ar, w1) br = Relu(b)"""
WEIGHTS = {"w0": (16, 3, 3, 3), "w1": (16, 16, 3, 3)}
QUICK = {"flops": 0.6, "search": "sensitivity", "round_to": 1, "history": "none"}

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "generic": (
        "(float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] box, float[N, 2, 8, 8] logit) "
        f"{{ {BODY} box = Conv(br, v) logit = Conv(br, u) }}",
        {"v": (4, 16, 1, 1), "u": (2, 16, 1, 1)},
    ),
    "segmentation": (
        f"(float[N, 3, 8, 8] x) => (float[N, 3, 8, 8] mask) {{ {BODY} mask = Conv(br, v) }}",
        {"v": (3, 16, 1, 1)},
    ),
    "regression": (
        f"(float[N, 3, 8, 8] x) => (float[N, 1] y) {{ {BODY} f = Flatten(br) y = Gemm(f, v) }}",
        {"v": (1024, 1)},
    ),
    "embedding": (
        f"(float[N, 3, 8, 8] x) => (float[N, 6] e) {{ {BODY} f = Flatten(br) g = Gemm(f, v) e = LpNormalization(g) }}",
        {"v": (1024, 6)},
    ),
}
METRICS = {
    "generic": "fidelity",
    "segmentation": "mIoU with the original",
    "regression": "R2 with the original",
    "embedding": "cosine with the original",
}


def pictures(n: int = 180, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((n, 3, 8, 8)).astype(np.float32)


def made(name: str, folder: Path) -> Path:
    text, constants = MODELS[name]
    onnx.save(proto(f"m {text}", **WEIGHTS, **constants), folder / f"{name}.onnx")
    return folder / f"{name}.onnx"


@pytest.mark.parametrize("name", MODELS)
def test_without_labels_every_output_is_recovered_scored_and_reported(name: str, tmp_path: Path) -> None:
    model, output = made(name, tmp_path), tmp_path / "slim.onnx"
    report = bocr_onnx.prune(model, data=pictures(), output=output, **QUICK)
    raw = bocr_onnx.prune(model, data=pictures(), output=tmp_path / "raw.onnx", **QUICK | {"recover": "none"})
    assert report.task == name
    assert report.metric == METRICS[name]
    assert report.baseline.accuracy == 1.0
    assert report.result.accuracy is not None
    assert raw.result.accuracy is not None
    assert raw.result.accuracy <= report.result.accuracy < 1.0
    assert {o["name"] for o in report.outputs} == {o.name for o in onnx.load(model).graph.output}
    for better, worse in zip(report.outputs, raw.outputs, strict=True):
        assert 0 < better["distortion"] < worse["distortion"]
        assert better["correlation"] > worse["correlation"]
    kept = json.loads((tmp_path / "slim.run" / "report.json").read_text())
    assert kept["task"] == name
    assert kept["outputs"] == list(report.outputs)
    assert "## Outputs on unseen images" in markdown(report)


def test_masks_are_what_a_segmenter_is_scored_against(tmp_path: Path) -> None:
    model, images = made("segmentation", tmp_path), pictures()
    masks = np.random.default_rng(0).integers(0, 3, (180, 8, 8))
    report = bocr_onnx.prune(model, data=(images, masks), output=tmp_path / "s.onnx", **QUICK)
    assert (report.task, report.metric) == ("segmentation", "mIoU")
    assert 0.1 < report.baseline.accuracy < 0.35, "random masks are not hit"


def test_numbers_are_what_a_regressor_is_scored_against(tmp_path: Path) -> None:
    model, images = made("regression", tmp_path), pictures()
    plain = bocr_onnx.prune(model, data=images, output=tmp_path / "p.onnx", **QUICK)
    numbers = np.random.default_rng(0).standard_normal(180)
    report = bocr_onnx.prune(model, data=(images, numbers), output=tmp_path / "s.onnx", **QUICK)
    assert (report.task, report.metric) == ("regression", "R2")
    assert report.baseline.accuracy < 0.1 < plain.result.accuracy
    scored = bocr_onnx.evaluate(model, (images, numbers))
    assert scored.metric == "R2"


def test_finetuning_distils_every_output(tmp_path: Path) -> None:
    model = made("generic", tmp_path)
    given = QUICK | {"flops": 0.3, "recover": "none"}
    report = bocr_onnx.prune(model, data=pictures(300), output=tmp_path / "s.onnx", finetune=4, **given)
    plain = bocr_onnx.prune(model, data=pictures(300), output=tmp_path / "p.onnx", **given)
    for trained, cut in zip(report.outputs, plain.outputs, strict=True):
        assert trained["distortion"] < cut["distortion"]


def test_a_model_that_nobody_measured_says_so(tmp_path: Path) -> None:
    report = bocr_onnx.prune(made("generic", tmp_path), output=tmp_path / "s.onnx", **QUICK | {"search": "uniform"})
    assert "quality not measured" in quality_text(report)
    assert "quality not measured" in markdown(report)
    assert report.outputs == ()


def test_an_array_file_of_any_rank_is_the_input(tmp_path: Path) -> None:
    text = """m (float[N, 4, 20] x) => (float[N, 5] y) {
        a = Conv <pads = [1, 1]> (x, w) r = Relu(a) b = Conv(r, v) p = ReduceMean <axes = [2], keepdims = 0> (b)
        y = MatMul(p, u) }"""
    onnx.save(proto(text, w=(12, 4, 3), v=(12, 12, 3), u=(12, 5)), tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((120, 4, 20)).astype(np.float32))
    report = bocr_onnx.prune(tmp_path / "m.onnx", data=tmp_path / "x.npy", output=tmp_path / "s.onnx", **QUICK)
    assert report.task == "classification"
    assert report.result.accuracy > 0.5


def test_a_task_that_does_not_fit_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    model = made("generic", tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DataError, match="must hold one vector of classes per image"):
        bocr_onnx.prune(model, data=pictures(), task="classification", output=tmp_path / "s.onnx", **QUICK)
    with pytest.raises(DataError, match="must differ between images"):
        bocr_onnx.prune(model, data=np.ones((90, 3, 8, 8), np.float32), output=tmp_path / "s.onnx", **QUICK)
    assert sorted(tmp_path.iterdir()) == before
