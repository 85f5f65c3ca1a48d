"""Models that are not classifiers go the whole way: searched, recovered, scored, reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

import bocr_onnx
from bocr_onnx.errors import DataError
from bocr_onnx.report import markdown, remarks
from tests.oracle import proto

pytestmark = pytest.mark.slow

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
    assert any("quality not measured" in text for text in remarks(report))
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


TWO = """m (float[N, 3, 8, 8] x, float[N, 5] state) => (float[N, 4] y, float[N, 2] z) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w0) ar = Relu(a) b = Conv(ar, w1) br = Relu(b)
    p = ReduceMean <axes = [2, 3], keepdims = 0> (br) s = MatMul(state, ws) sr = Relu(s)
    c = Concat <axis = 1> (p, sr) y = MatMul(c, v) z = MatMul(c, u) }"""
PARTS = {**WEIGHTS, "ws": (5, 12), "v": (28, 4), "u": (28, 2)}


@pytest.fixture
def two(tmp_path: Path) -> Path:
    onnx.save(proto(TWO, **PARTS), tmp_path / "two.onnx")
    return tmp_path / "two.onnx"


def inputs(n: int = 180) -> dict[str, Any]:
    return {"x": pictures(n), "state": np.random.default_rng(5).standard_normal((n, 5)).astype(np.float64)}


def test_a_model_of_two_inputs_is_fed_arrays_named_like_them(two: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "both.npz", **inputs())
    report = bocr_onnx.prune(two, data=tmp_path / "both.npz", output=tmp_path / "s.onnx", **QUICK)
    raw = bocr_onnx.prune(two, data=inputs(), output=tmp_path / "r.onnx", **QUICK | {"recover": "none"})
    assert [o["name"] for o in report.outputs] == ["y", "z"]
    for better, worse in zip(report.outputs, raw.outputs, strict=True):
        assert 0 < better["distortion"] < worse["distortion"]
    again = bocr_onnx.prune(two, data=inputs(), output=tmp_path / "m.onnx", **QUICK)
    assert (tmp_path / "m.onnx").read_bytes() == (tmp_path / "s.onnx").read_bytes()
    assert again.outputs == report.outputs
    resumed = bocr_onnx.prune(two, resume=tmp_path / "m.run")
    assert resumed.outputs == report.outputs


def test_two_inputs_are_searched_and_finetuned(two: Path, tmp_path: Path) -> None:
    given = QUICK | {"search": "local", "trials": 4, "recover": "oneshot", "flops": 0.4, "finetune": 3}
    report = bocr_onnx.prune(two, data=inputs(300), output=tmp_path / "s.onnx", **given)
    assert report.search["trials"] == 4
    assert report.accuracy_before_finetune < report.result.accuracy


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"state": None}, "must hold an array for every input of .*, got none for 'state'"),
        ({"stat": np.zeros((180, 5), np.float32), "state": None}, "got none for 'state'\n.*mean 'stat'"),
        ({"more": np.zeros((180, 5), np.float32)}, "array 'more' must be named like an input"),
        ({"state": np.zeros((179, 5), np.float32)}, "must hold as many samples each"),
        (
            {"state": np.zeros((180, 6), np.float32)},
            r"must become the model's input 'state' \(5\), got \(6,\) per image",
        ),
        ({"state": np.full((180, 5), np.nan)}, "array 'state' must hold finite numbers"),
    ],
)
def test_arrays_that_do_not_match_the_inputs_are_refused(
    change: dict[str, Any], words: str, two: Path, tmp_path: Path
) -> None:
    arrays = {name: array for name, array in (inputs() | change).items() if array is not None}
    with pytest.raises(DataError, match=words):
        bocr_onnx.prune(two, data=arrays, output=tmp_path / "s.onnx", **QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["two.onnx"]


def test_open_axes_take_the_sizes_of_the_arrays(tmp_path: Path) -> None:
    onnx.save(proto(TWO.replace("[N, 3, 8, 8]", "[N, 3, H, W]"), **PARTS), tmp_path / "two.onnx")
    report = bocr_onnx.prune(tmp_path / "two.onnx", data=inputs(), output=tmp_path / "s.onnx", **QUICK)
    assert report.baseline.macs == 64 * 16 * 27 + 36 * 16 * 144 + 5 * 12 + 28 * 6


def test_whole_numbers_are_fed_in_the_type_of_their_input(tmp_path: Path) -> None:
    text = """m (int64[N, 6] tokens) => (float[N, 4] y) {
        e = Gather(table, tokens) p = ReduceMean <axes = [1], keepdims = 0> (e) a = MatMul(p, w) r = Relu(a)
        y = MatMul(r, v) }"""
    onnx.save(proto(text, table=(50, 16), w=(16, 24), v=(24, 4)), tmp_path / "m.onnx")
    tokens = np.random.default_rng(0).integers(0, 50, (200, 6)).astype(np.int32)
    np.savez(tmp_path / "t.npz", tokens=tokens)
    report = bocr_onnx.prune(tmp_path / "m.onnx", data=tmp_path / "t.npz", output=tmp_path / "s.onnx", **QUICK)
    assert 0.3 < report.result.accuracy <= 1


def test_a_manifest_has_a_column_per_input_and_images_are_preprocessed(two: Path, tmp_path: Path) -> None:
    """Images and vectors mixed give what their arrays give."""
    rng, folder = np.random.default_rng(5), tmp_path / "data"
    folder.mkdir()
    pixels = rng.integers(0, 256, (180, 8, 8, 3), dtype=np.uint8)
    states = rng.standard_normal((180, 5)).astype(np.float32)
    lines = ["x,state"]
    for i, (picture, state) in enumerate(zip(pixels, states, strict=True)):
        Image.fromarray(picture).save(folder / f"{i}.png")
        np.save(folder / f"{i}.npy", state)
        lines.append(f"{i}.png,{i}.npy")
    (folder / "manifest.csv").write_text("\n".join(lines))
    mixed = bocr_onnx.prune(two, data=folder, preset="unit", output=tmp_path / "s.onnx", **QUICK)
    arrays = {"x": (pixels / np.float32(255)).astype(np.float32).transpose(0, 3, 1, 2), "state": states}
    plain = bocr_onnx.prune(two, data=arrays, output=tmp_path / "p.onnx", **QUICK)
    assert [o["name"] for o in mixed.outputs] == ["y", "z"]
    for one, other in zip(mixed.outputs, plain.outputs, strict=True):
        assert one["distortion"] == pytest.approx(other["distortion"], rel=1e-3)


def test_a_folder_of_arrays_is_the_input(tmp_path: Path) -> None:
    model, folder, images = made("regression", tmp_path), tmp_path / "data", pictures()
    folder.mkdir()
    for i, image in enumerate(images):
        np.save(folder / f"{i:03}.npy", image)
    report = bocr_onnx.prune(model, data=folder, output=tmp_path / "s.onnx", **QUICK)
    assert report.outputs == bocr_onnx.prune(model, data=images, output=tmp_path / "p.onnx", **QUICK).outputs


def test_an_output_that_counts_more_is_kept_better(two: Path, tmp_path: Path) -> None:
    given = QUICK | {"search": "local", "trials": 8, "flops": 0.5, "seed": 1}
    one = bocr_onnx.prune(two, data=inputs(), output=tmp_path / "y.onnx", output_weights={"z": 0}, **given)
    other = bocr_onnx.prune(two, data=inputs(), output=tmp_path / "z.onnx", output_weights={"y": 0}, **given)
    assert one.outputs[0]["distortion"] <= other.outputs[0]["distortion"]
    assert other.outputs[1]["distortion"] <= one.outputs[1]["distortion"]
    assert one.outputs != other.outputs
    resumed = bocr_onnx.prune(two, resume=tmp_path / "y.run")
    assert resumed.outputs == one.outputs


def test_inputs_without_an_axis_of_samples_are_fed_one_at_a_time(tmp_path: Path) -> None:
    text = """m (float[1, 3, 8, 8] x, float[2, 1, 4] state, float gain) => (float[1, 6] y, float[2, 1, 4] next) {
        a = Conv (x, w0)  ar = Relu(a)  f = GlobalAveragePool(ar)  g = Flatten(f)  h = Gemm(g, v)  y = Mul(h, gain)
        next = MatMul(state, u) }"""
    model = tmp_path / "m.onnx"
    onnx.save(proto(text, w0=(16, 3, 3, 3), v=(16, 6), u=(4, 4)), model)
    rng = np.random.default_rng(1)
    data = {"x": pictures(), "state": rng.standard_normal((180, 2, 1, 4)), "gain": rng.uniform(0.5, 2, 180)}
    np.savez(tmp_path / "data.npz", **{name: array.astype(np.float32) for name, array in data.items()})
    slim = tmp_path / "slim.onnx"
    report = bocr_onnx.prune(model, data=tmp_path / "data.npz", output=slim, **QUICK | {"flops": 0.8})
    y, following = report.outputs
    assert 0 < y["distortion"] < 0.5
    assert following["distortion"] == 0.0
    trained = bocr_onnx.finetune(slim, model, data=tmp_path / "data.npz", epochs=1, output=tmp_path / "tuned.onnx")
    assert trained.after >= trained.before
    np.savez(tmp_path / "other.npz", x=pictures(), state=data["state"][:, 0].astype(np.float32), gain=data["gain"])
    with pytest.raises(DataError, match=r"input 'state' \(2, 1, 4\), got \(1, 4\) per image"):
        bocr_onnx.prune(model, data=tmp_path / "other.npz", output=tmp_path / "no.onnx", **QUICK)
