"""A training that is cut off goes on as if it had not been; the rest of the loop's settings do what they say."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from bocr_onnx.errors import ResumeError, TrainingError, UsageError
from bocr_onnx.graph import from_proto
from bocr_onnx.options import FinetuneSettings
from bocr_onnx.training import Hooks, finetune
from bocr_onnx.training.average import Average
from bocr_onnx.training.batches import Batches
from bocr_onnx.training.interpreter import OnnxModule
from bocr_onnx.training.watch import feature_maps
from tests.training.test_finetune import QUICK, damaged, small_net, weights

pytestmark = pytest.mark.slow

rng = np.random.default_rng(0)
IMAGES = rng.standard_normal((96, 1, 8, 8)).astype(np.float32)
LABELS = rng.integers(0, 10, 96)
LONG = FinetuneSettings(epochs=4, batch_size=32, average=0.9, normalize=True)


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("step", [4, 6, 11])
def test_cut_off_and_taken_up_gives_the_same_bits(optimizer, step, tmp_path):
    graph = small_net()
    settings = replace(LONG, optimizer=optimizer)

    def trained(checkpoint=None, on_step=None):
        return finetune(
            graph,
            graph,
            IMAGES,
            LABELS,
            settings=settings,
            checkpoint=checkpoint,
            hooks=Hooks(on_step=on_step, validate=lambda p: float(np.frombuffer(weights(p)["W3"], np.float32).std())),
        )

    def kill(report):
        if report.step == step:
            raise KilledError

    whole = trained()
    with pytest.raises(KilledError):
        trained(tmp_path / "a.pt", kill)
    again = trained(tmp_path / "a.pt")
    assert weights(again.proto) == weights(whole.proto)
    assert again.history == whole.history
    assert again.best_score == whole.best_score


@pytest.mark.parametrize("step", [4, 6])
def test_an_interrupt_waits_for_its_step_and_the_rest_gives_the_same_bits(step, tmp_path):
    graph = small_net()

    def trained(checkpoint=None, on_step=None):
        return finetune(
            graph, graph, IMAGES, LABELS, settings=LONG, checkpoint=checkpoint, hooks=Hooks(on_step=on_step)
        )

    def interrupt(report):
        if report.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    whole = trained()
    stopped = trained(tmp_path / "a.pt", interrupt)
    assert stopped.stopped == f"interrupted after step {step}"
    taken = []
    again = trained(tmp_path / "a.pt", taken.append)
    assert taken[0].step == step + 1
    assert weights(again.proto) == weights(whole.proto)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("done"),
        lambda state: state.pop("learner"),
        lambda state: state.update(learner=[]),
        lambda state: state.update(candidates={}),
        lambda state: state.update(done="many"),
        lambda state: state["learner"].clear(),
    ],
)
def test_a_checkpoint_with_missing_or_wrong_keys_is_refused_in_words(change, tmp_path):
    graph, path = small_net(), tmp_path / "a.pt"
    finetune(graph, graph, IMAGES, settings=QUICK, checkpoint=path)
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    with pytest.raises(ResumeError, match="must hold the state of this training"):
        finetune(graph, graph, IMAGES, settings=QUICK, checkpoint=path)


def test_a_finished_training_is_not_repeated(tmp_path):
    graph, steps = small_net(), []
    for _ in range(2):
        finetune(graph, graph, IMAGES, settings=QUICK, checkpoint=tmp_path / "a.pt", hooks=Hooks(on_step=steps.append))
    assert len(steps) == 1


def test_another_trainings_checkpoint_is_refused(tmp_path):
    graph = small_net()
    finetune(graph, graph, IMAGES, settings=QUICK, checkpoint=tmp_path / "a.pt")
    with pytest.raises(ResumeError, match="must belong to this model"):
        finetune(graph, graph, IMAGES, settings=replace(QUICK, seed=1), checkpoint=tmp_path / "a.pt")
    (tmp_path / "a.pt").write_bytes(b"no checkpoint")
    with pytest.raises(ResumeError, match="must be a readable one"):
        finetune(graph, graph, IMAGES, settings=QUICK, checkpoint=tmp_path / "a.pt")


def test_no_room_for_a_checkpoint_keeps_the_best_model(tmp_path):
    graph = small_net()
    (tmp_path / "file").write_text("")
    result = finetune(graph, graph, IMAGES, settings=QUICK, checkpoint=tmp_path / "file" / "a.pt")
    assert "checkpoint" in result.stopped
    assert "must be writable" in result.stopped
    assert weights(result.proto) != weights(graph.proto)


def test_patience_ends_a_training_that_does_not_improve():
    graph = small_net()
    scores = iter([0.5, 0.6, 0.6, 0.55, 0.7])
    settings = replace(LONG, epochs=4, patience=2)
    result = finetune(graph, graph, IMAGES, settings=settings, hooks=Hooks(validate=lambda _: next(scores)))
    assert [r.score for r in result.history] == [0.5, 0.6, 0.6, 0.55]
    assert result.stopped == ""
    assert result.epochs_done == 3


def test_the_average_follows_and_is_put_in_and_taken_out():
    module = OnnxModule(small_net())
    average = Average(module, 0.5)
    before = [t.clone() for _, t in module.named_initializers()]
    with torch.no_grad():
        for _, tensor in module.named_initializers():
            tensor.add_(1.0)
    average.update()  # the first step decays by (1 + 0) / (10 + 0)
    for old, mean in zip(before, average.tensors, strict=True):
        assert torch.allclose(mean, old + 0.9, atol=1e-5)
    with average.applied():
        assert all(torch.equal(t, m) for (_, t), m in zip(module.named_initializers(), average.tensors, strict=True))
    assert all(torch.allclose(t, b + 1) for (_, t), b in zip(module.named_initializers(), before, strict=True))


def test_every_epoch_sees_every_image_once_in_an_order_of_its_own():
    batches = Batches(10, 5, seed=3)
    first, second = (np.concatenate([batches.indices(s) for s in steps]) for steps in ((1, 2), (3, 4)))
    assert sorted(first) == sorted(second) == list(range(10))
    assert list(first) != list(second)
    few = list(Batches(3, 5, seed=0).indices(1))
    assert few == [*few[:3], *few[:2]]
    assert sorted(few[:3]) == [0, 1, 2]


def test_features_pull_the_student_towards_the_teacher():
    teacher = small_net()
    student = damaged(teacher)
    assert feature_maps(student, teacher) == ("r", "d")

    def maps_apart(proto):
        from bocr_onnx.training.watch import watched

        with torch.no_grad():
            ours, theirs = (
                OnnxModule(watched(g, ("d",))).eval()(torch.from_numpy(IMAGES))[1] for g in (from_proto(proto), teacher)
            )
        return float((ours - theirs).square().mean())

    settings = FinetuneSettings(epochs=6, batch_size=32, learning_rate=0.05)
    plain = finetune(student, teacher, IMAGES, settings=settings).proto
    pulled = finetune(student, teacher, IMAGES, settings=replace(settings, feature_weight=3.0)).proto
    assert maps_apart(pulled) < maps_apart(student.proto)
    assert maps_apart(pulled) < maps_apart(plain)


@pytest.mark.parametrize(
    "changes",
    [{"optimizer": "adamw"}, {"label_smoothing": 0.1}, {"precision": "bf16-mixed"}, {"average": 0.9}],
    ids=str,
)
def test_settings_change_what_is_learned(changes):
    graph = small_net()
    settings = FinetuneSettings(epochs=2, batch_size=32, learning_rate=0.01, device="cpu")
    plain = finetune(graph, graph, IMAGES, LABELS, settings=settings)
    other = finetune(graph, graph, IMAGES, LABELS, settings=replace(settings, **changes))
    assert weights(other.proto) != weights(plain.proto)
    assert other.stopped == ""
    assert all(np.isfinite(np.frombuffer(w, np.float32)).all() for w in weights(other.proto).values())


def test_a_teacher_of_another_interface_is_refused():
    with pytest.raises(TrainingError, match="must have the inputs of its teacher"):
        finetune(small_net(), small_net(last=True), IMAGES)
    with pytest.raises(TrainingError, match="must have the outputs of its teacher"):
        finetune(small_net(), small_net(softmax=True), IMAGES)


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [("optimizer", "adam", "adamw"), ("device", "cude", "cuda"), ("precision", "bf16", "bf16-mixed")],
)
def test_unknown_choices_name_the_nearest(name, value, hint):
    with pytest.raises(UsageError, match=f"`{name}` must be .* or .*, got") as caught:
        FinetuneSettings(**{name: value})
    assert hint in caught.value.hint


def test_a_model_without_weights_is_refused():
    graph = from_proto(
        onnx.parser.parse_model(
            """<ir_version: 8, opset_import: ["" : 17]>
            still (float[N, 1, 8, 8] x) => (float[N, 1, 8, 8] y) { y = Relu(x) }"""
        )
    )
    with pytest.raises(TrainingError, match="must have floating-point weights on the way to its outputs"):
        finetune(graph, graph, IMAGES)
