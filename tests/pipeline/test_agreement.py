"""A device that computes something else than this host is found out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

import bocr_onnx
from bocr_onnx.cli.main import app
from bocr_onnx.devices import Host, Request, Rounds, Tensors
from bocr_onnx.devices.result import read_outputs
from bocr_onnx.errors import DeviceError
from bocr_onnx.graph import Array, from_proto
from bocr_onnx.pipeline.agreement import batches_for, check_agreement, check_outputs
from bocr_onnx.tasks import find_task

pytestmark = pytest.mark.slow

DEMO = str(files("bocr_onnx.calibration") / "demo.onnx")
DIGITS = Path(DEMO).parent / "digits.npz"
RNG = np.random.default_rng(0)
IMAGES = RNG.random((7, 4), dtype=np.float32)
LABELS = np.array([0, 1, 2, 0, 1, 2, 0])


def classifier(batch: str, sign: int = 1) -> onnx.ModelProto:
    made = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : 17]>
        m (float[{batch}, 4] x) => (float[{batch}, 3] y) {{ y = MatMul(x, w) }}""")
    weights = sign * np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32)
    made.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    return made


class Wrong(Host):
    """A device with a kernel that computes something else from the third image on."""

    def outputs(
        self,
        models: Sequence[bytes],
        batches: Mapping[str, Array],
        names: Sequence[str],
        request: Request,
        progress: Rounds | None = None,
    ) -> tuple[Tensors, ...]:
        found = super().outputs(models, batches, names, request, progress)
        return tuple(tuple(tuple(-a for a in b) if i >= 2 else b for i, b in enumerate(m)) for m in found)


class Negating(Host):
    """A device on which every sign is wrong."""

    def outputs(self, *args: object) -> tuple[Tensors, ...]:  # type: ignore[override]
        found = super().outputs(*args)  # type: ignore[arg-type]
        return tuple(tuple(tuple(-a for a in b) for b in m) for m in found)


class Cropping(Host):
    """A device that gives something of another shape."""

    def outputs(self, *args: object) -> tuple[Tensors, ...]:  # type: ignore[override]
        found = super().outputs(*args)  # type: ignore[arg-type]
        return tuple(tuple(tuple(a[:, :2] for a in b) for b in m) for m in found)


@pytest.mark.parametrize("batch", ["N", "1", "3"])
def test_each_model_is_compared_with_itself_here(batch: str) -> None:
    proto = classifier(batch)
    graph = from_proto(proto)
    task = find_task(graph, "classification", LABELS)
    request, batches = Request(), batches_for(graph, IMAGES)
    right, other = check_agreement(Host(), (proto, classifier(batch, -1)), batches, LABELS, task, request)
    truth = np.argmax(IMAGES @ onnx.numpy_helper.to_array(proto.graph.initializer[0]), axis=1)
    assert right.n_images == 7
    assert right.metric == "top-1"
    assert right.here == right.there == pytest.approx(np.mean(truth == LABELS))
    assert not right.differs
    assert not other.differs
    assert other.here == other.there
    without = check_agreement(Host(), (proto, classifier(batch, -1)), batches, None, task, request)
    assert without[0].here == 1
    assert without[1].here < 0.7


def test_a_device_that_computes_something_else_is_found_out() -> None:
    proto = classifier("1")
    graph = from_proto(proto)
    task = find_task(graph, "classification")
    (found,) = check_agreement(Wrong(), (proto,), batches_for(graph, IMAGES), None, task, Request())
    assert found.differs
    assert found.here == 1
    assert found.there < 0.7
    assert found.outputs[0]["largest_error"] > 1
    (random,) = check_outputs(Negating(), [graph], Request())
    assert random.differs
    assert not check_outputs(Host(), [graph], Request())[0].differs
    with pytest.raises(DeviceError, match="of the shapes that they have here"):
        check_outputs(Cropping(), [graph], Request())
    with pytest.raises(DeviceError, match="of the shapes that they have here"):
        check_agreement(Cropping(), (proto,), batches_for(graph, IMAGES), None, task, Request())


def test_outputs_that_are_no_numbers_are_left_out() -> None:
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        m (float[2] x) => (seq(float[2]) s, float[2] y) { s = SequenceConstruct(x)  y = Neg(x) }""")
    (found,) = check_outputs(Host(), [from_proto(proto)], Request())
    assert [row["name"] for row in found.outputs] == ["y"]
    assert (found.here, found.there) == (None, None)


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        (None, "must give the outputs of the models"),
        ([[[{"dtype": "|O8", "shape": [1], "data": ""}]]], "must give the outputs of the models"),
        ([[[{"dtype": "<f4", "shape": [1], "data": "?"}]]], "must give the outputs of the models"),
        ([[[{"dtype": "<f4", "shape": [9], "data": "AAAAAA=="}]]], "must give the outputs of the models"),
        ([[[]]], "must give 1 tensors of 1 batches"),
        ([[[{"dtype": "<f4", "shape": [1], "data": "AAAAAA=="}]] * 2], "must give 1 tensors of 1 batches"),
    ],
)
def test_what_is_no_output_is_refused(outputs: object, words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        read_outputs("phone", {"outputs": outputs}, (1, 1, 1))


def test_bench_scores_on_images_of_its_own(tmp_path: Path) -> None:
    given = {"flops": 0.5, "search": "uniform", "history": "none"}
    bocr_onnx.prune(DEMO, output=tmp_path / "slim.onnx", **given)
    asked = ["bench", DEMO, str(tmp_path / "slim.onnx"), "--data", str(DIGITS), "--runs", "12"]
    shown = CliRunner().invoke(app, [*asked, "--check-images", "30", "--json"])
    assert shown.exit_code == 0, shown.output
    first, second = json.loads(shown.stdout)["models"]
    assert first["agreement"]["n_images"] == second["agreement"]["n_images"] == 30
    assert first["agreement"]["here"] == first["agreement"]["there"] > second["agreement"]["here"]
    assert not first["agreement"]["differs"]
    table = CliRunner().invoke(app, [*asked, "--check-images", "30"]).stdout
    assert "top-1 on 30 images" in table
    assert "agreement" not in CliRunner().invoke(app, [*asked, "--check-images", "0", "--json"]).stdout
