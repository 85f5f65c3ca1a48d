from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from bocr_onnx.data.augmentation import Augmentation
from bocr_onnx.errors import DataError, UsageError
from bocr_onnx.graph import Edit, ModelGraph, apply_edit, from_proto
from bocr_onnx.options import FinetuneSettings
from bocr_onnx.training import FinetuneResult, Hooks, StepReport, finetune

pytestmark = pytest.mark.slow

Array = np.ndarray[Any, Any]
QUICK = FinetuneSettings(epochs=0.25, batch_size=32)


def small_net(
    *, batch: str | int = "N", norm: bool = True, softmax: bool = False, last: bool = False, seed: int = 0
) -> ModelGraph:
    """Conv, BatchNormalization (or none), ReLU, stride, pool, linear; 8 x 8 digits to ten classes."""
    rng = np.random.default_rng(seed)
    n = 12

    def drawn(*shape: int) -> Array:
        return (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)

    constants = {"W1": drawn(n, 1, 3, 3), "W2": drawn(n, n, 3, 3), "b2": np.zeros(n, np.float32)}
    constants |= {"W3": drawn(10, n), "b3": np.zeros(10, np.float32)}
    first = "x"
    nodes = []
    if last:
        nodes.append(helper.make_node("Transpose", ["x"], ["nchw"], perm=[0, 3, 1, 2]))
        first = "nchw"
    nodes.append(helper.make_node("Conv", [first, "W1"], ["a"], pads=[1] * 4))
    if norm:
        ones, zeros = np.ones(n, np.float32), np.zeros(n, np.float32)
        constants |= {"s": ones, "b": zeros, "m": zeros, "v": ones}
        nodes.append(helper.make_node("BatchNormalization", ["a", "s", "b", "m", "v"], ["n"]))
    nodes += [
        helper.make_node("Relu", ["n" if norm else "a"], ["r"]),
        helper.make_node("Conv", ["r", "W2", "b2"], ["c"], pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalMaxPool", ["d"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "W3", "b3"], ["z"], transB=1),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["z"], ["q"]))
    shape = [batch, 8, 8, 1] if last else [batch, 1, 8, 8]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("q" if softmax else "z", TensorProto.FLOAT, [batch, 10])],
        [numpy_helper.from_array(a, k) for k, a in constants.items()],
    )
    return from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small train fastest on one thread, and threads that wait for each other disturb other tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def digits() -> tuple[Array, Array]:
    from sklearn.datasets import load_digits

    found = load_digits()
    return (found.images[:, None] / 16).astype(np.float32), found.target


def outputs(proto: onnx.ModelProto, images: Array) -> Array:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    result: Array = session.run(None, {session.get_inputs()[0].name: images})[0]
    return result


def accuracy(proto: onnx.ModelProto, data: tuple[Array, Array]) -> float:
    images, labels = data
    return float((outputs(proto, images[1400:]).argmax(1) == labels[1400:]).mean())


def damaged(graph: ModelGraph, share: float = 0.3) -> ModelGraph:
    rng = np.random.default_rng(1)
    operands = {}
    for node in graph.nodes:
        array = graph.operand((node.index, 1))
        if node.op in ("Conv", "Gemm") and array is not None:
            operands[node.index, 1] = array * (1 + share * rng.standard_normal(array.shape))
    return from_proto(apply_edit(graph, Edit(operands=operands)))


def weights(proto: onnx.ModelProto) -> dict[str, bytes]:
    return {t.name: numpy_helper.to_array(t).tobytes() for t in proto.graph.initializer}


@pytest.fixture(scope="module")
def taught(digits: tuple[Array, Array]) -> FinetuneResult:
    """A network that learned the digits from their labels alone."""
    graph = small_net()
    settings = FinetuneSettings(epochs=8, batch_size=32, learning_rate=0.1, label_weight=1.0)
    return finetune(graph, graph, digits[0][:1400], digits[1][:1400], settings=settings)


def test_labels_lift_the_accuracy(taught: FinetuneResult, digits: tuple[Array, Array]) -> None:
    assert accuracy(small_net().proto, digits) < 0.3
    assert accuracy(taught.proto, digits) > 0.85
    assert taught.epochs_done == pytest.approx(8, abs=0.1)
    assert taught.stopped == ""
    losses = [h.loss for h in taught.history[1:]]
    assert losses[-1] is not None
    assert losses[0] is not None
    assert losses[-1] < losses[0] / 2


def test_the_teacher_alone_brings_a_damaged_student_back(taught: FinetuneResult, digits: tuple[Array, Array]) -> None:
    teacher = from_proto(taught.proto)
    student = damaged(teacher)
    settings = FinetuneSettings(epochs=2, batch_size=32)
    result = finetune(student, teacher, digits[0][:1400], settings=settings)
    before, after, wanted = (outputs(p, digits[0]) for p in (student.proto, result.proto, teacher.proto))
    assert np.square(after - wanted).mean() < 0.3 * np.square(before - wanted).mean()
    assert accuracy(result.proto, digits) > accuracy(student.proto, digits)


def test_the_same_seed_gives_the_same_bits(digits: tuple[Array, Array]) -> None:
    graph = small_net()

    def trained(seed: int) -> dict[str, bytes]:
        settings = FinetuneSettings(epochs=0.5, batch_size=32, seed=seed)
        both = Augmentation(flip=True, pad=1)
        return weights(finetune(graph, graph, *digits, settings=settings, augmentation=both).proto)

    assert trained(3) == trained(3)
    assert trained(3) != trained(4)


def test_the_graph_stays_the_one_given(digits: tuple[Array, Array]) -> None:
    graph = small_net()
    before = graph.proto.SerializeToString()
    proto = finetune(graph, graph, *digits, settings=QUICK).proto
    assert graph.proto.SerializeToString() == before
    assert [n.SerializeToString() for n in proto.graph.node] == [n.SerializeToString() for n in graph.proto.graph.node]
    assert weights(proto).keys() == weights(graph.proto).keys()


def test_the_best_candidate_wins_and_the_student_is_one(digits: tuple[Array, Array]) -> None:
    graph = small_net()
    scores = iter([0.5, 0.7, 0.6])
    seen: list[onnx.ModelProto] = []

    def validate(proto: onnx.ModelProto) -> float:
        seen.append(proto)
        return next(scores)

    settings = FinetuneSettings(epochs=2, batch_size=128)
    result = finetune(graph, graph, *digits, settings=settings, hooks=Hooks(validate=validate))
    assert weights(result.proto) == weights(seen[1])
    assert result.best_score == 0.7
    assert [h.score for h in result.history] == [0.5, 0.7, 0.6]
    unchanged = finetune(
        graph, graph, *digits, settings=QUICK, hooks=Hooks(validate=lambda p: -float(p is not graph.proto))
    )
    assert weights(unchanged.proto) == weights(graph.proto)


def test_steps_are_reported(digits: tuple[Array, Array]) -> None:
    reports: list[StepReport] = []
    graph = small_net()
    settings = FinetuneSettings(epochs=1.5, batch_size=256, warmup=0.2)
    finetune(graph, graph, *digits, settings=settings, hooks=Hooks(on_step=reports.append))
    assert [r.step for r in reports] == list(range(1, 11))  # 7 steps an epoch; 10.5 rounds to even
    assert {r.n_steps for r in reports} == {10}
    assert reports[6].epoch == 1.0
    assert max(r.learning_rate for r in reports) == 0.05 * 1.5 / 2 == reports[1].learning_rate
    assert reports[-1].learning_rate == 0.0
    assert all(r.loss > 0 and r.elapsed_s > 0 for r in reports)


@pytest.mark.parametrize("with_score", [True, False])
def test_a_loss_that_is_no_number_stops_and_keeps_the_best(digits: tuple[Array, Array], with_score: bool) -> None:
    images, labels = digits[0].copy(), digits[1]
    graph = small_net()
    poisoned: list[float] = []

    def poison(report: StepReport) -> None:
        poisoned.append(report.loss)
        if report.step == 20:
            images[:] = np.nan

    result = finetune(
        graph,
        graph,
        images,
        labels,
        settings=FinetuneSettings(epochs=3, batch_size=128),
        hooks=Hooks(on_step=poison, validate=(lambda p: float(p is not graph.proto)) if with_score else None),
    )
    assert result.stopped == "step 21: the loss became nan"
    assert result.epochs_done == pytest.approx(20 / 14)
    assert len(result.history) == 2
    assert len(poisoned) == 20
    assert weights(result.proto) != weights(graph.proto)
    assert np.isfinite(outputs(result.proto, digits[0])).all()


def test_a_loss_that_is_no_number_at_once_gives_the_student_back(digits: tuple[Array, Array]) -> None:
    graph = small_net()
    result = finetune(graph, graph, np.full((40, 1, 8, 8), np.nan, np.float32), settings=QUICK)
    assert result.stopped.startswith("step 1: ")
    assert weights(result.proto) == weights(graph.proto)
    assert result.epochs_done == 0


def test_weights_spoilt_by_the_last_step_are_not_kept(digits: tuple[Array, Array]) -> None:
    graph = small_net(norm=False)
    settings = FinetuneSettings(epochs=0.01, batch_size=32, learning_rate=1e38, warmup=1.0, grad_clip=0)
    result = finetune(graph, graph, 1e4 * digits[0], digits[1], settings=settings)
    assert result.stopped == "step 1: a weight is no longer finite"
    assert weights(result.proto) == weights(graph.proto)


def test_an_interrupt_keeps_what_is_there(digits: tuple[Array, Array]) -> None:
    graph = small_net()

    def interrupt(report: StepReport) -> None:
        if report.step == 3:
            raise KeyboardInterrupt

    result = finetune(graph, graph, *digits, settings=FinetuneSettings(epochs=1), hooks=Hooks(on_step=interrupt))
    assert result.stopped == "interrupted after step 3"
    assert weights(result.proto) != weights(graph.proto)
    scored = finetune(
        graph,
        graph,
        *digits,
        settings=FinetuneSettings(epochs=1),
        hooks=Hooks(on_step=interrupt, validate=lambda _: 0.5),
    )
    assert weights(scored.proto) == weights(graph.proto)
    assert scored.best_score == 0.5


def test_a_batch_baked_in_is_the_batch_and_keeps_the_statistics(digits: tuple[Array, Array]) -> None:
    graph = small_net(batch=2)
    settings = FinetuneSettings(epochs=1, batch_size=128)
    result = finetune(graph, graph, digits[0][:9], digits[1][:9], settings=settings)
    assert result.epochs_done == 1.0
    before, after = weights(graph.proto), weights(result.proto)
    assert after["m"] == before["m"]
    assert after["W1"] != before["W1"]


def test_fewer_images_than_a_batch_make_one_step(digits: tuple[Array, Array]) -> None:
    graph = small_net()
    reports: list[StepReport] = []
    finetune(graph, graph, digits[0][:5], settings=FinetuneSettings(epochs=1), hooks=Hooks(on_step=reports.append))
    assert len(reports) == 1


@pytest.mark.parametrize("kind", [{"softmax": True}, {"norm": False}, {"last": True}], ids=str)
def test_other_kinds_of_network_learn(kind: dict[str, bool], digits: tuple[Array, Array]) -> None:
    graph = small_net(**kind)  # type: ignore[arg-type]
    images = digits[0].transpose(0, 2, 3, 1) if kind.get("last") else digits[0]
    settings = FinetuneSettings(epochs=4, batch_size=32, learning_rate=0.05, label_weight=1.0)
    crops = Augmentation(pad=1) if kind.get("last") else None
    result = finetune(graph, graph, images[:1400], digits[1][:1400], settings=settings, augmentation=crops)
    assert accuracy(result.proto, (images, digits[1])) > 0.5


def test_numbers_stay_with_their_image(digits: tuple[Array, Array]) -> None:
    """A flipped image has other landmarks: augmentation would teach the wrong ones."""
    graph, numbers = small_net(), np.eye(10, dtype=np.float32)[digits[1]]
    one, other = (
        finetune(graph, graph, digits[0], numbers, settings=QUICK, augmentation=augmentation).proto
        for augmentation in (Augmentation(flip=True), None)
    )
    assert weights(one) == weights(other)


def test_images_may_be_loaded_when_asked(digits: tuple[Array, Array]) -> None:
    class Lazily:
        asked = 0

        def __len__(self) -> int:
            return 100

        def __getitem__(self, indices: Array) -> Array:
            self.asked += len(indices)
            result: Array = digits[0][indices]
            return result

    images = Lazily()
    graph = small_net()
    settings = FinetuneSettings(epochs=1, batch_size=50, normalize=False)
    result = finetune(graph, graph, images, digits[1][:100], settings=settings)
    assert images.asked == 100
    assert weights(result.proto) == weights(
        finetune(graph, graph, digits[0][:100], digits[1][:100], settings=settings).proto
    )


def test_labels_must_fit(digits: tuple[Array, Array]) -> None:
    graph = small_net()
    with pytest.raises(DataError, match="labels must be as many as the images, 1797, got 7"):
        finetune(graph, graph, digits[0], digits[1][:7])
    with pytest.raises(DataError, match=r"labels must be in 0\.\.9, got 12"):
        finetune(graph, graph, digits[0], digits[1] + 3)
    with pytest.raises(DataError, match="must have images"):
        finetune(graph, graph, digits[0][:0])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("learning_rate", -1),
        ("momentum", 1.0),
        ("label_weight", 1.5),
        ("warmup", -0.1),
        ("grad_clip", -1),
    ],
)
def test_settings_out_of_range_are_errors(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"`{name}` must be"):
        FinetuneSettings(**{name: value})  # type: ignore[arg-type]


def test_training_draws_nothing_from_torchs_own_generator(digits: tuple[Array, Array]) -> None:
    graph = small_net()
    before = torch.get_rng_state()
    finetune(graph, graph, *digits, settings=QUICK, augmentation=Augmentation(flip=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_classifier_takes_sgd_and_other_tasks_adamw_unless_told() -> None:
    left, named = FinetuneSettings(), FinetuneSettings(optimizer="adamw", learning_rate=0.5)
    assert (left.settled().optimizer, left.settled().learning_rate) == ("sgd", 0.025)
    by_epochs = {e: replace(left, epochs=e).settled().learning_rate for e in (0.1, 0.4, 1.5, 2, 50)}
    assert by_epochs == pytest.approx({0.1: 0.01, 0.4: 0.01, 1.5: 0.0375, 2: 0.05, 50: 0.05})
    assert replace(left, epochs=0.1, learning_rate=0.3).settled().learning_rate == 0.3
    assert (left.settled(classes=False).optimizer, left.settled(classes=False).learning_rate) == ("adamw", 0.002)
    assert named.settled() == named
    assert FinetuneSettings(optimizer="adamw").settled().learning_rate == 0.002
    assert FinetuneSettings(learning_rate=0.5).settled(classes=False).learning_rate == 0.5
