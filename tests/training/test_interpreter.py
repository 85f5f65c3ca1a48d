from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from bocr_onnx.errors import TrainingError
from bocr_onnx.graph import ModelGraph, from_proto, load, random_feeds
from bocr_onnx.training import OnnxModule, check_agreement, export
from bocr_onnx.training.interpreter import Reference, compute, relative_difference


def graph_of(text: str, **constants: np.ndarray[Any, Any]) -> ModelGraph:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    proto.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in constants.items())
    return from_proto(proto)


def w(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def runtime(proto: onnx.ModelProto) -> Reference:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    return lambda feeds: session.run(None, feeds)


def stored(proto: onnx.ModelProto) -> dict[str, bytes]:
    return {t.name: numpy_helper.to_array(t).tobytes() for t in proto.graph.initializer}


@pytest.fixture(params=["resnet20_bn", "resnet20_folded", "resnet20_dynamo", "mobilenet_v1_0.5_160"])
def shared_graph(request: pytest.FixtureRequest, shared: Path) -> ModelGraph:
    return load(shared / "models" / f"{request.param}.onnx")


@pytest.fixture
def normal() -> ModelGraph:
    return graph_of(
        """one (float[N, 3, 6, 6] x) => (float[N, 4, 6, 6] y) {
            c = Conv <pads = [1, 1, 1, 1]> (x, W)
            n = BatchNormalization <momentum = 0.8> (c, s, b, m, v)
            y = Relu(n)
        }""",
        W=w(4, 3, 3, 3),
        s=np.ones(4, np.float32),
        b=np.zeros(4, np.float32),
        m=np.zeros(4, np.float32),
        v=np.ones(4, np.float32),
    )


@pytest.mark.shared
@pytest.mark.parametrize("batch", [1, 2])
def test_shared_models_agree_with_onnxruntime(shared_graph: ModelGraph, batch: int) -> None:
    module = OnnxModule(shared_graph)
    assert check_agreement(module, shared_graph, runtime(shared_graph.proto), batch=batch) < 1e-5


@pytest.mark.shared
def test_shared_models_come_back_bit_by_bit(shared_graph: ModelGraph) -> None:
    proto = export(OnnxModule(shared_graph), shared_graph)
    assert proto.SerializeToString() == shared_graph.proto.SerializeToString()


@pytest.mark.shared
def test_gradients_of_shared_models_are_finite(shared_graph: ModelGraph) -> None:
    module = OnnxModule(shared_graph).train()
    (x,) = random_feeds(shared_graph, batch=2).values()
    module(torch.from_numpy(x))[0].square().mean().backward()
    gradients = [p.grad for p in module.parameters()]
    assert all(g is not None and bool(torch.isfinite(g).all()) for g in gradients)
    assert any(bool(g.any()) for g in gradients if g is not None)


@pytest.mark.shared
def test_changed_weights_are_written_exactly(shared_graph: ModelGraph) -> None:
    module = OnnxModule(shared_graph)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.01)
    proto = export(module, shared_graph)
    again = OnnxModule(from_proto(proto))
    for (_, a), (_, b) in zip(module.named_initializers(), again.named_initializers(), strict=True):
        assert torch.equal(a, b)
    check_agreement(module, shared_graph, runtime(proto))


@pytest.mark.shared
def test_shape_arithmetic_stays_on_the_host(shared_graph: ModelGraph) -> None:
    """Torch's meta device refuses to mix with the host, as an accelerator does."""
    module = OnnxModule(shared_graph).to("meta")
    (x,) = random_feeds(shared_graph, batch=2).values()
    (y,) = module(torch.from_numpy(x).to("meta"))
    assert y.device.type == "meta"
    assert y.shape == (2, *shared_graph.shapes[shared_graph.outputs[0]][1:])


def test_running_statistics_are_buffers_and_follow_the_momentum(normal: ModelGraph) -> None:
    module = OnnxModule(normal)
    assert [name for name, _ in module.named_initializers()] == ["W", "s", "b", "m", "v"]
    assert len(list(module.parameters())) == 3
    x = torch.from_numpy(w(8, 3, 6, 6))
    module.train()
    module(x)
    mean = torch.nn.functional.conv2d(x, torch.from_numpy(w(4, 3, 3, 3)), padding=1).mean((0, 2, 3))
    statistics = dict(module.named_initializers())
    assert torch.allclose(statistics["m"], 0.2 * mean, atol=1e-6)
    assert stored(export(module, normal))["m"] == statistics["m"].numpy().tobytes()


def test_inference_leaves_running_statistics_alone(normal: ModelGraph) -> None:
    module = OnnxModule(normal).eval()
    module(torch.from_numpy(w(8, 3, 6, 6)))
    assert export(module, normal).SerializeToString() == normal.proto.SerializeToString()


def test_statistics_stored_once_for_two_nodes_part_when_they_differ() -> None:
    graph = graph_of(
        """one (float[N, 2, 4, 4] x) => (float[N, 2, 4, 4] y) {
            a = BatchNormalization (x, one, zero, zero, one)
            r = Relu(a)
            y = BatchNormalization (r, one, zero, zero, one)
        }""",
        one=np.ones(2, np.float32),
        zero=np.zeros(2, np.float32),
    )
    module = OnnxModule(graph).train()
    module(torch.from_numpy(w(8, 2, 4, 4)))
    buffers = [t for name, t in module.named_initializers() if name == "zero"]
    assert len(buffers) == 3  # the shared bias, and two running means
    proto = export(module, graph)
    check_agreement(module, graph, runtime(proto))


def test_a_weight_read_twice_is_one_parameter() -> None:
    graph = graph_of(
        """one (float[N, 2, 4, 4] x) => (float[N, 2, 4, 4] y) {
            a = Conv (x, W)
            y = Conv (a, W)
        }""",
        W=w(2, 2, 1, 1),
    )
    module = OnnxModule(graph)
    assert len(list(module.parameters())) == 1
    with torch.no_grad():
        next(module.parameters()).mul_(2)
    proto = export(module, graph)
    assert [t.name for t in proto.graph.initializer] == ["W"]
    check_agreement(module, graph, runtime(proto))


def test_a_folded_weight_trains_and_is_written_apart() -> None:
    graph = graph_of(
        """one (float[N, 2, 4, 4] x) => (float[N, 2, 4, 4] y) {
            k = Neg(W)
            a = Conv (x, W)
            b = Conv (x, k)
            y = Add (a, b)
        }""",
        W=w(2, 2, 1, 1),
    )
    module = OnnxModule(graph)
    assert [name for name, _ in module.named_initializers()] == ["W", "k"]
    with torch.no_grad():
        list(module.parameters())[1].mul_(3)
    check_agreement(module, graph, runtime(export(module, graph)))


def test_scalars_and_shape_arithmetic_do_not_train() -> None:
    graph = graph_of(
        """one (float[N, 2, 4, 4] x) => (float[N, 2, 4, 4] y, float[4] f) {
            a = Mul (x, half)
            b = Add (a, shift)
            g = Mul (b, gain)
            y = Conv (g, k)
            s = Shape (x)
            c = Cast <to = 1> (s)
            f = Mul (c, scales)
        }""",
        half=np.float32(0.5),
        shift=w(2, 1, 1),
        gain=w(2, 1, 1, seed=1),
        scales=w(4),
        k=w(2, 2, 1, 1),
    )
    module = OnnxModule(graph)
    assert [name for name, _ in module.named_initializers()] == ["shift", "gain", "k"]
    check_agreement(module, graph, runtime(graph.proto))


def test_what_decodes_the_last_weights_does_not_train() -> None:
    """A bias and a scale beside weights train; the points and strides of a detector's grid do not."""
    graph = graph_of(
        """one (float[N, 2, 4, 4] x) => (float[N, 2, 16] y) {
            c = Conv (x, k)
            m = Mul (c, gain)
            a = Add (m, shift)
            r = Reshape (a, rows)
            p = Add (r, points)
            y = Mul (p, strides)
        }""",
        k=w(2, 2, 1, 1),
        gain=w(2, 1, 1),
        shift=w(2, 1, 1, seed=1),
        rows=np.array([0, 2, 16]),
        points=w(2, 16),
        strides=w(1, 16),
    )
    assert [name for name, _ in OnnxModule(graph).named_initializers()] == ["k", "gain", "shift"]


def test_only_weights_decay(normal: ModelGraph) -> None:
    decaying, others = OnnxModule(normal).parameter_groups(0.1)
    assert [len(decaying["params"]), len(others["params"])] == [1, 2]  # type: ignore[arg-type]
    assert [decaying["weight_decay"], others["weight_decay"]] == [0.1, 0.0]


def test_half_weights_train_in_float32_and_come_back_as_half() -> None:
    graph = graph_of(
        "one (float16[N, 3] x) => (float16[N, 2] y) { y = Gemm (x, W, b) }",
        W=w(3, 2).astype(np.float16),
        b=w(2).astype(np.float16),
    )
    module = OnnxModule(graph)
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert export(module, graph).SerializeToString() == graph.proto.SerializeToString()
    with torch.no_grad():
        next(module.parameters()).add_(1e-7).mul_(2)
    proto = export(module, graph)
    assert {t.data_type for t in proto.graph.initializer} == {onnx.TensorProto.FLOAT16}
    check_agreement(module, graph, runtime(proto))


def test_dead_nodes_need_no_function() -> None:
    graph = graph_of("one (float[N, 3] x) => (float[N, 3] y) { u = Hardmax (x) y = Relu (x) }")
    assert compute(OnnxModule(graph), [w(2, 3)])[0].shape == (2, 3)


def test_an_output_may_be_an_input_or_a_constant() -> None:
    graph = graph_of("one (float[2] x) => (float[2] y, float[2] k) { y = Identity (x) k = Identity (c) }", c=w(2))
    y, k = compute(OnnxModule(graph), [w(2, seed=3)])
    np.testing.assert_array_equal(y, w(2, seed=3))
    np.testing.assert_array_equal(k, w(2))


def test_an_unknown_operator_is_refused_by_name() -> None:
    graph = graph_of("one (float[N, 3] x) => (float[N, 3] y) { [odd] y = Hardmax (x) }")
    with pytest.raises(TrainingError, match=r"node 'odd' must be an operator .* got 'Hardmax' of opset 17"):
        OnnxModule(graph)


def test_a_subgraph_is_refused_by_name() -> None:
    graph = graph_of(
        """one (float[3] x, bool b) => (float[3] y) {
            [fork] y = If (b) <
                then_branch = t () => (float[3] p) { p = Relu (x) },
                else_branch = e () => (float[3] q) { q = Identity (x) }
            >
        }"""
    )
    with pytest.raises(TrainingError, match=r"node 'fork' must be an operator .* got 'If'"):
        OnnxModule(graph)


def test_a_second_output_that_is_not_computed_is_refused() -> None:
    graph = graph_of(
        """one (float[1, 1, 4, 4] x) => (float[1, 1, 2, 2] y, int64[1, 1, 2, 2] i) {
            [pool] y, i = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)
        }"""
    )
    with pytest.raises(TrainingError, match=r"node 'pool' \(MaxPool\) must have only its first 1 outputs read"):
        OnnxModule(graph)


def test_inputs_that_do_not_fit_name_the_node(normal: ModelGraph) -> None:
    with pytest.raises(TrainingError, match=r"node 'Conv_0' \(Conv\) must fit inputs of shapes"):
        OnnxModule(normal)(torch.zeros(1, 5, 6, 6))


def test_disagreement_names_the_model_and_the_difference(normal: ModelGraph) -> None:
    module = OnnxModule(normal)
    with torch.no_grad():
        next(module.parameters()).mul_(1.01)
    with pytest.raises(TrainingError, match=r"the model: output 'y' must agree .* relative difference of 0\.0"):
        check_agreement(module, normal, runtime(normal.proto))


def test_difference_is_relative_and_nan_is_kept() -> None:
    a = np.array([2.0, 4.0])
    assert relative_difference(a, a) == 0.0
    assert relative_difference(np.array([2.0, 5.0]), a) == pytest.approx(0.25)
    assert np.isnan(relative_difference(np.array([np.nan, 4.0]), a))
