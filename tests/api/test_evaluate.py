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
    assert bocr_onnx.evaluate(DEMO, tmp_path / "images.npy", against=DEMO).score.value == 1


def test_an_original_with_another_interface_is_refused(tmp_path: Path) -> None:
    model = onnx.load(DEMO)
    model.graph.node[-1].output[0] = model.graph.output[0].name = "other"
    onnx.save(model, tmp_path / "renamed.onnx")
    with pytest.raises(ModelError, match="must have the inputs and outputs of"):
        bocr_onnx.evaluate(tmp_path / "renamed.onnx", DIGITS, against=DEMO)
