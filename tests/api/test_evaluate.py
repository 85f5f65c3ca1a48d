"""`evaluate`: a model alone on labelled images, and beside its original on any."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from typer.testing import CliRunner

import bocr_onnx
from bocr_onnx.cli.main import app
from bocr_onnx.errors import DataError, ModelError

DEMO = str(files("bocr_onnx.calibration") / "demo.onnx")
DIGITS = str(files("bocr_onnx.calibration") / "digits.npz")


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the demo with a worse last layer."""
    path = tmp_path_factory.mktemp("evaluate") / "changed.onnx"
    model = onnx.load(DEMO)
    weight = next(t for t in model.graph.initializer if t.name == model.graph.node[-1].input[1])
    values = onnx.numpy_helper.to_array(weight)
    noise = np.random.default_rng(0).normal(scale=2 * values.std(), size=values.shape)
    weight.CopyFrom(onnx.numpy_helper.from_array((values + noise).astype(np.float32), weight.name))
    onnx.save(model, path)
    return path


def classes(path: str | Path, images: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(str(path))
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: x[None]})[0].argmax(1) for x in images])


def test_beside_the_original_with_labels(changed: Path) -> None:
    digits = np.load(DIGITS)
    images, labels = (digits["val_images"][:, None] / np.float32(16)).astype(np.float32), digits["val_labels"]
    found = bocr_onnx.evaluate(changed, (images, labels), against=DEMO)
    own, first = classes(changed, images), classes(DEMO, images)
    assert found.original is not None
    assert found.agreement is not None
    assert found.score.value == pytest.approx(np.mean(own == labels))
    assert found.original.value == pytest.approx(np.mean(first == labels))
    assert found.agreement.value == pytest.approx(np.mean(own == first))
    assert len({found.score.value, found.original.value, found.agreement.value}) == 3, "the three must differ here"
    record = found.as_json()
    assert (record["original"]["value"], record["agreement"]["value"]) == (
        found.original.value,
        found.agreement.value,
    )


def test_without_labels_the_original_is_the_truth(changed: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.load(DIGITS)["val_images"])
    with pytest.raises(DataError, match="must have labels to evaluate on"):
        bocr_onnx.evaluate(changed, tmp_path / "images.npy")
    told = CliRunner().invoke(
        app, ["evaluate", str(changed), "--against", DEMO, "--data", str(tmp_path / "images.npy")]
    )
    assert told.exit_code == 0, told.output
    assert "changed.onnx: agreement with the original " in told.stdout
    assert "demo.onnx" not in told.stdout, "its score is 1 by definition"
    same = bocr_onnx.evaluate(DEMO, tmp_path / "images.npy", against=DEMO)
    assert (same.score.value, same.original, same.agreement) == (1, None, same.score)


def test_an_original_with_another_interface_is_refused(tmp_path: Path) -> None:
    model = onnx.load(DEMO)
    model.graph.node[-1].output[0] = model.graph.output[0].name = "other"
    onnx.save(model, tmp_path / "renamed.onnx")
    with pytest.raises(ModelError, match="must have the inputs and outputs of"):
        bocr_onnx.evaluate(tmp_path / "renamed.onnx", DIGITS, against=DEMO)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_batch_that_one_of_the_two_has_fixed_is_fed(changed: Path, tmp_path: Path, batch: int) -> None:
    model = onnx.load(changed)
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.shape.dim[0].dim_value = batch
    onnx.save(model, tmp_path / "fixed.onnx")
    opened, fixed = (bocr_onnx.evaluate(path, DIGITS, against=DEMO) for path in (changed, tmp_path / "fixed.onnx"))
    assert fixed.score == opened.score
    turned = bocr_onnx.evaluate(DEMO, DIGITS, against=tmp_path / "fixed.onnx")
    assert (turned.score, turned.original) == (opened.original, opened.score)


def test_a_model_that_says_what_is_not_a_number_is_refused(tmp_path: Path) -> None:
    model = onnx.load(DEMO)
    weight = next(t for t in model.graph.initializer if t.name == model.graph.node[-1].input[1])
    weight.CopyFrom(onnx.numpy_helper.from_array(np.full(weight.dims, np.nan, np.float32), weight.name))
    onnx.save(model, tmp_path / "nan.onnx")
    with pytest.raises(ModelError, match="must be finite, got NaN"):
        bocr_onnx.evaluate(tmp_path / "nan.onnx", DIGITS, against=DEMO)
    (runs, *_) = bocr_onnx.check(tmp_path / "nan.onnx", against=DEMO).criteria
    assert (runs.name, runs.verdict) == ("runs", "error")


def test_the_original_is_told_where_it_is_right_on_all_images(tmp_path: Path) -> None:
    digits = np.load(DIGITS)
    images, labels = digits["val_images"], digits["val_labels"]
    right = classes(DEMO, (images[:, None] / np.float32(16)).astype(np.float32)).ravel() == labels
    np.savez(tmp_path / "right.npz", images=images[right], labels=labels[right])
    told = CliRunner().invoke(app, ["evaluate", DEMO, "--against", DEMO, "--data", str(tmp_path / "right.npz")])
    assert [line.partition(": ")[2][:13] for line in told.stdout.splitlines()] == [
        "top-1 100.00%",
        "top-1 100.00%",
        "100.00% (+-0.",
    ]
