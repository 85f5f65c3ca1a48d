"""Training alone, from file to file."""

from __future__ import annotations

import json
from importlib.resources import files

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import bocr_onnx
from bocr_onnx.errors import DataError, ResumeError, TrainingError, UsageError
from bocr_onnx.progress import Silent

CALIBRATION = files("bocr_onnx.calibration")
DEMO, DIGITS = str(CALIBRATION / "demo.onnx"), str(CALIBRATION / "digits.npz")


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """The demo model, cut in half by the same share everywhere, with the weights it had."""
    folder = tmp_path_factory.mktemp("student")
    path = folder / "slim.onnx"
    bocr_onnx.prune(DEMO, flops=0.5, strategy="uniform", output=path)
    return str(path)


def options(student, folder, **changes):
    asked = {"epochs": 2.0, "learning_rate": 0.05, "batch_size": 64, "normalize": True, "device": "cpu"}
    return {"model": student, "teacher": DEMO, "data": DIGITS, "output": folder / "t.onnx"} | asked | changes


@pytest.fixture(scope="module")
def trained(student, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    made = bocr_onnx.finetune(**options(student, folder, tensorboard=folder / "curves"))
    return folder, made


def test_accuracy_comes_back_and_the_graph_stays(student, trained):
    folder, made = trained
    assert made.metric == "top-1"
    assert made.after > made.before + 0.1
    assert made.finetune["agreement_after"] < 1e-4
    assert 0 < made.distortions[1] < made.distortions[0]
    before, after = onnx.load(student), onnx.load(made.output)
    assert [n.SerializeToString() for n in before.graph.node] == [n.SerializeToString() for n in after.graph.node]
    assert json.loads((folder / "t.run" / "report.json").read_text()) == json.loads(json.dumps(made.as_json()))
    scored = bocr_onnx.evaluate(made.output, DIGITS)
    assert scored.score.value == pytest.approx(made.after)


def test_curves_are_written_for_tensorboard(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, made = trained
    events = EventAccumulator(str(folder / "curves"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "learning_rate", "score"}
    assert [e.value for e in events.Scalars("score")] == pytest.approx(
        [h["score"] for h in made.finetune["history"]], rel=1e-6
    )


def test_an_interrupted_training_goes_on_to_the_same_weights(student, trained, tmp_path):
    _, whole = trained

    class Impatient(Silent):
        def task(self, description):
            from contextlib import contextmanager

            @contextmanager
            def opened():
                def update(done, total, detail=""):
                    if description == "Finetuning" and done == total // 2 + 2:
                        raise KeyboardInterrupt

                yield update

            return opened()

    asked = options(student, tmp_path)
    first = bocr_onnx.finetune(**asked, progress=Impatient())
    assert first.finetune["stopped"].startswith("interrupted after step")
    second = bocr_onnx.finetune(**asked, resume=tmp_path / "t.run")
    assert second.finetune["stopped"] == ""
    for a, b in zip(onnx.load(whole.output).graph.initializer, onnx.load(second.output).graph.initializer, strict=True):
        assert np.array_equal(numpy_helper.to_array(a), numpy_helper.to_array(b)), a.name


def test_without_labels_the_teacher_is_enough(student, tmp_path):
    digits = np.load(DIGITS)
    np.savez(tmp_path / "images.npz", images=digits["images"], val_images=digits["val_images"])
    asked = options(student, tmp_path)
    made = bocr_onnx.finetune(**(asked | {"data": tmp_path / "images.npz", "preset": "digits"}))
    assert made.metric == "agreement with the original"
    assert made.teacher == 1.0
    assert made.after > made.before + 0.1


def test_what_does_not_fit_is_refused(student, tmp_path):
    with pytest.raises(UsageError, match="must not be a file that is read"):
        bocr_onnx.finetune(student, DEMO, DIGITS, output=student, run_dir=tmp_path / "r")
    with pytest.raises(UsageError, match=r"unknown option `learning_rte`\n.*mean 'learning_rate'"):
        bocr_onnx.finetune(**options(student, tmp_path, learning_rte=0.1))
    with pytest.raises(UsageError, match="`learning_rate` must be a number, got 'fast'"):
        bocr_onnx.finetune(**options(student, tmp_path, learning_rate="fast"))
    with pytest.raises(DataError):
        bocr_onnx.finetune(student, DEMO, "nowhere", output=tmp_path / "t.onnx")
    with pytest.raises(ResumeError, match="must be a run directory"):
        bocr_onnx.finetune(**options(student, tmp_path), resume=tmp_path)


def test_a_teacher_with_another_interface_is_refused(student, tmp_path):
    other = onnx.load(DEMO)
    other.graph.output[0].name = "scores"
    for node in other.graph.node:
        node.output[:] = ["scores" if name == "logits" else name for name in node.output]
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(TrainingError, match="must have the outputs of its teacher"):
        bocr_onnx.finetune(student, tmp_path / "other.onnx", DIGITS, output=tmp_path / "t.onnx")


def test_a_loss_that_is_no_number_keeps_the_model_and_says_which_step(student, tmp_path):
    made = bocr_onnx.finetune(**options(student, tmp_path, learning_rate=1e30, grad_clip=0.0, warmup=0.0))
    assert made.finetune["stopped"].startswith("step ")
    assert made.after == pytest.approx(made.before)


class Noting(Silent):
    """Keeps what it is told."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.mark.parametrize("improves", [False, True])
def test_training_that_was_for_nothing_says_so(student, tmp_path, improves):
    """The teacher itself cannot come nearer to the teacher."""
    told = Noting()
    model = student if improves else DEMO
    made = bocr_onnx.finetune(**options(model, tmp_path, epochs=1.0, progress=told))
    assert any("no epoch was better" in note for note in told.notes) == (not improves)
    assert (made.after == made.before) == (not improves)
