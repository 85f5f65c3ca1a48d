"""Inputs of uint8 and of half precision are fed their own type, from images to the slim file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import bocr_onnx
from bocr_onnx.errors import DataError
from bocr_onnx.pipeline.images import as_input
from tests.oracle import build, proto

QUICK = {"flops": 0.6, "round_to": 1, "history": "none", "n_score": 20, "n_recovery": 20}
BODY = "a = Conv <strides = [2, 2]> (x, U, b) r = Relu(a) c = Conv(r, V) s = Relu(c) g = GlobalAveragePool(s)"
HEAD = "f = Flatten(g) y = Gemm(f, K)"
PIXELS = f"t = Transpose <perm = [0, 3, 1, 2]> (p) q = Cast <to = 1> (t) x = Div(q, scale) {BODY} {HEAD}"


def constants(dtype: type) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"U": (8, 3, 3, 3), "b": (8,), "V": (16, 8, 3, 3), "K": (16, 4)}
    return {name: (0.3 * rng.normal(size=shape)).astype(dtype) for name, shape in shapes.items()}


def images(folder: Path) -> Path:
    pictures = np.random.default_rng(1).integers(0, 256, (80, 12, 12, 3), dtype=np.uint8)
    np.savez(folder / "x.npz", images=pictures)
    return folder / "x.npz"


def write(folder: Path, text: str, **values: np.ndarray) -> Path:
    onnx.save(proto(text, **values), folder / "m.onnx")
    return folder / "m.onnx"


def pixels(folder: Path) -> Path:
    scale = np.array(255, np.float32)
    text = f"m (uint8[N, 12, 12, 3] p) => (float[N, 4] y) {{ {PIXELS} }}"
    return write(folder, text, scale=scale, **constants(np.float32))


def half(folder: Path) -> Path:
    text = f"m (float16[N, 3, 12, 12] x) => (float16[N, 4] y) {{ {BODY} {HEAD} }}"
    return write(folder, text, **constants(np.float16))


@pytest.mark.parametrize("recover", ["oneshot", "sequential"])
@pytest.mark.parametrize(("make", "preset"), [(pixels, "raw-nhwc"), (half, "cifar10")])
def test_a_run_from_images_to_the_slim_file(tmp_path: Path, make, preset: str, recover: str) -> None:
    model = make(tmp_path)
    report = bocr_onnx.prune(
        model,
        **QUICK,
        strategy="sensitivity",
        recover=recover,
        data=images(tmp_path),
        preset=preset,
        output=tmp_path / "s.onnx",
    )
    assert report.proof["passed"]
    slim, original = onnx.load(tmp_path / "s.onnx").graph, onnx.load(model).graph
    assert {t.data_type for t in slim.initializer} == {t.data_type for t in original.initializer}
    assert report.result.accuracy > 0.5
    kind = np.uint8 if make is pixels else np.float16
    shape = (2, 12, 12, 3) if make is pixels else (2, 3, 12, 12)
    session = onnxruntime.InferenceSession(str(tmp_path / "s.onnx"))
    assert session.run(None, {session.get_inputs()[0].name: np.ones(shape, kind)})[0].shape == (2, 4)


@pytest.mark.parametrize(("make", "preset"), [(pixels, "raw-nhwc"), (half, "cifar10")])
def test_training_takes_them_too(tmp_path: Path, make, preset: str) -> None:
    model = make(tmp_path)
    found = bocr_onnx.finetune(
        model, model, images(tmp_path), preset=preset, output=tmp_path / "f.onnx", n_score=20, epochs=0.5
    )
    assert found.after > 0.5


def test_pixels_are_guessed_for_integers_alone(tmp_path: Path) -> None:
    report = bocr_onnx.prune(
        pixels(tmp_path), **QUICK, strategy="sensitivity", data=images(tmp_path), output=tmp_path / "s.onnx"
    )
    assert report.data["preprocessing"]["name"] == "raw-nhwc"
    halves = half(tmp_path)
    report = bocr_onnx.prune(halves, **QUICK, strategy="sensitivity", data=images(tmp_path), output=tmp_path / "s.onnx")
    assert report.data["preprocessing"]["name"] == "cifar10"


def test_a_preprocessing_that_normalizes_is_refused_for_pixels(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must keep the pixels for the uint8 input 'p'") as info:
        bocr_onnx.prune(
            pixels(tmp_path), **QUICK, strategy="sensitivity", data=images(tmp_path), preset="tf", output=tmp_path / "s"
        )
    assert "`preset=raw`" in info.value.hint


def test_values_become_the_nearest_that_the_input_holds() -> None:
    bytes_ = build("m (uint8[N, 3] x) => (float[N, 3] y) { y = Cast <to = 1> (x) }")
    found = as_input(bytes_, np.array([[-0.4, 1.6, 255.3]], np.float32))
    assert (found.dtype, found.tolist()) == (np.uint8, [[0, 2, 255]])
    halves = build("m (float16[N, 1] x) => (float16[N, 1] y) { y = Relu(x) }")
    assert as_input(halves, np.ones((1, 1), np.float32)).dtype == np.float16


def test_pixels_that_an_input_cannot_hold_are_refused_and_may_be_shifted(tmp_path: Path) -> None:
    text = f"m (int8[N, 12, 12, 3] p) => (float[N, 4] y) {{ {PIXELS} }}"
    model = write(tmp_path, text, scale=np.array(255, np.float32), **constants(np.float32))
    asked = {**QUICK, "strategy": "uniform", "data": images(tmp_path), "output": tmp_path / "s.onnx"}
    with pytest.raises(DataError, match=r"must fit int8 input 'p' of .*, -128 to 127, got 0 to 255"):
        bocr_onnx.prune(model, **asked)
    described = tmp_path / "p.toml"
    described.write_text(
        'channels = "RGB"\nlayout = "NHWC"\nscale = 1\nmean = [128, 128, 128]\nstd = [1, 1, 1]\n', encoding="utf-8"
    )
    assert bocr_onnx.prune(model, **asked, preprocess=described).proof["passed"]


def test_pixels_of_any_size_are_guessed(tmp_path: Path) -> None:
    scale = np.array(255, np.float32)
    text = f"m (uint8[N, H, W, 3] p) => (float[N, 4] y) {{ {PIXELS} }}"
    model = write(tmp_path, text, scale=scale, **constants(np.float32))
    pictures = np.random.default_rng(1).integers(0, 256, (20, 12, 14, 3), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=pictures, labels=np.arange(20) % 4)
    found = bocr_onnx.evaluate(model, tmp_path / "x.npz")
    assert (found.preprocessing, found.n_images) == ("raw-nhwc", 20)


def test_a_type_that_a_file_names_must_be_that_of_the_input(tmp_path: Path) -> None:
    model, data, described = pixels(tmp_path), images(tmp_path), tmp_path / "p.toml"
    keeps = 'channels = "RGB"\nlayout = "NHWC"\nscale = 1\nmean = [0, 0, 0]\nstd = [1, 1, 1]\n'
    asked = {**QUICK, "strategy": "uniform", "data": data, "preprocess": described, "output": tmp_path / "s.onnx"}
    described.write_text(keeps + 'dtype = "uint8"\n')
    assert bocr_onnx.prune(model, **asked).proof["passed"]
    described.write_text(keeps + 'dtype = "float16"\n')
    with pytest.raises(DataError, match=r"must be that of input 'p' of .*, uint8, got float16"):
        bocr_onnx.prune(model, **asked)
