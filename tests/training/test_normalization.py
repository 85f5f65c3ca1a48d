"""Normalization is put back without changing the function, trains, and folds away exactly."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from bocr_onnx.graph import Edit, ModelGraph, apply_edit, from_proto
from bocr_onnx.options import FinetuneSettings
from bocr_onnx.training import OnnxModule, export, finetune
from bocr_onnx.training.normalization import FLOOR, fold, normalize
from tests.training.test_finetune import small_net


def run(proto, images):
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": images})[0]


def images(n: int = 64):
    return np.random.default_rng(0).standard_normal((n, 1, 8, 8)).astype(np.float32)


def batches(n: int = 2):
    return [(torch.from_numpy(part),) for part in np.array_split(images(), n)]


@pytest.fixture
def plain() -> ModelGraph:
    return small_net(norm=False)


def test_the_function_is_unchanged_and_statistics_are_those_of_the_images(plain):
    made = normalize(plain, batches())
    assert made.convs == ("c",)  # the first convolution has no bias: nothing was folded into it
    assert np.allclose(run(made.graph.proto, images()), run(plain.proto, images()), atol=1e-5)
    module = OnnxModule(made.graph).train()
    with torch.no_grad():
        found = module(torch.from_numpy(images()))[0].numpy()
    assert np.allclose(found, run(plain.proto, images()), atol=1e-4)


def test_batches_of_any_size_measure_the_same(plain):
    one, two = (dict(OnnxModule(normalize(plain, batches(n)).graph).named_initializers()) for n in (1, 3))
    for name in ("c.norm.mean", "c.norm.var", "c.norm.scale"):
        assert torch.allclose(one[name], two[name], rtol=1e-4)


def test_folding_an_untrained_one_gives_the_model_back(plain):
    made = normalize(plain, batches())
    back = from_proto(fold(made, made.graph.proto))
    assert [n.op for n in back.nodes] == [n.op for n in plain.nodes]
    for name, array in plain.constants.items():
        assert np.allclose(back.constants[name], array, atol=1e-5), name


def test_folding_keeps_what_training_made(plain):
    made = normalize(plain, batches())
    module = OnnxModule(made.graph)
    rng = np.random.default_rng(1)
    with torch.no_grad():
        for name, tensor in module.named_initializers():
            factor = torch.from_numpy(rng.uniform(0.7, 1.3, tuple(tensor.shape)).astype(np.float32))
            tensor.mul_(factor)
            assert name in made.graph.constants
    trained = export(module, made.graph)
    folded = fold(made, trained)
    assert "BatchNormalization" not in [n.op_type for n in folded.graph.node]
    assert np.allclose(run(folded, images()), run(trained, images()), atol=1e-4)
    assert not np.allclose(run(folded, images()), run(plain.proto, images()), atol=1e-2)


def test_a_channel_that_hardly_varies_is_not_blown_up(plain):
    dead = plain.constants["W2"].copy()
    dead[3] = 0
    index = next(n.index for n in plain.nodes if n.outputs == ("c",))
    graph = from_proto(apply_edit(plain, Edit(operands={(index, 1): dead})))
    made = normalize(graph, batches())
    norm = next(n for n in made.graph.nodes if n.op == "BatchNormalization")
    var = made.graph.operand((norm.index, 4))
    assert var[3] == 0
    assert norm.attributes["epsilon"] == pytest.approx(FLOOR * var.mean(), rel=1e-4)
    assert np.allclose(run(made.graph.proto, images()), run(graph.proto, images()), atol=1e-5)


def test_followed_by_a_normalization_or_one_by_one_is_left_alone():
    assert normalize(small_net(norm=True), batches()).convs == ("c",)
    assert normalize(from_proto(small_net(norm=True).proto), []).convs == ("c",)


def test_training_with_it_emits_the_plain_graph(plain):
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 10, 64)
    settings = FinetuneSettings(epochs=2, batch_size=32, learning_rate=0.05, normalize=True)
    proto = finetune(plain, plain, images(), labels, settings=settings).proto
    assert [n.op_type for n in proto.graph.node] == [n.op_type for n in plain.proto.graph.node]
    assert {t.name for t in proto.graph.initializer} == {t.name for t in plain.proto.graph.initializer}
    assert not np.array_equal(run(proto, images()), run(plain.proto, images()))
