"""Segments lie between tensors that are alone alive; each learns what the original gives there, or keeps its start."""

from __future__ import annotations

import itertools
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import bocr_onnx
from bocr_onnx.cost import prunable
from bocr_onnx.errors import TrainingError
from bocr_onnx.graph import ModelGraph, from_proto
from bocr_onnx.pipeline.rebuild import images_within
from bocr_onnx.progress import Silent
from bocr_onnx.recovery import Calibration
from bocr_onnx.runtime import run_once
from bocr_onnx.slimming import changed_operands, cut, kept_positions
from bocr_onnx.training import OnnxModule, find_segments, reconstruct

pytestmark = pytest.mark.slow

DEMO = str(files("bocr_onnx.calibration") / "demo.onnx")
DIGITS = str(files("bocr_onnx.calibration") / "digits.npz")
RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((300, 3, 8, 8)).astype(np.float32)
RESIDUAL = """
<ir_version: 8, opset_import: ["" : 17]>
m (float[N, 3, 8, 8] x) => (float[N, 16, 8, 8] side, float[N, 5] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w0)  s = Relu(a)
    b = Conv <pads = [1, 1, 1, 1]> (s, w1)  c = Relu(b)  d = Conv <pads = [1, 1, 1, 1]> (c, w2)
    e = Add(d, s)  f = Relu(e)
    side = Tanh(f)
    g = Conv (f, w3)  h = Relu(g)  i = Conv (h, w4)  j = Add(i, f)  k = Relu(j)
    p = GlobalAveragePool(k)  q = Flatten(p)  y = Gemm(q, w5)
}"""
SHAPES = {"w0": (16, 3, 3, 3), "w1": (24, 16, 3, 3), "w2": (16, 24, 3, 3), "w3": (24, 16, 1, 1), "w4": (16, 24, 1, 1),
          "w5": (16, 5)}  # fmt: skip


def residual(seed: int = 0) -> ModelGraph:
    made = onnx.parser.parse_model(RESIDUAL)
    rng = np.random.default_rng(seed)
    for name, shape in SHAPES.items():
        scale = (2 / np.prod(shape[1:])) ** 0.5
        made.graph.initializer.append(
            onnx.numpy_helper.from_array((scale * rng.standard_normal(shape)).astype(np.float32), name)
        )
    return from_proto(made)


def halved(graph: ModelGraph) -> tuple[ModelGraph, dict[str, dict[int, Any]], Any, Any]:
    """Returns a graph without half of the channels of every group, what it keeps, the index, and the mask."""
    index = prunable(graph).index
    mask = np.zeros(index.n_channels, dtype=bool)
    for group in index.groups:
        mask[group.start : group.start + group.n_channels // 2] = True
    kept = {n: {a: kept_positions(c, mask) for a, c in axes.items()} for n, axes in index.axes.items()}
    return from_proto(cut(index, mask)), kept, index, mask


def test_segments_lie_between_tensors_that_are_alone_alive() -> None:
    module = OnnxModule(residual())
    segments = find_segments(module, least=1)
    assert [(s.source, s.targets) for s in segments] == [
        ("", ("s",)), ("s", ("side", "f")), ("f", ("q",)), ("q", ("y",)),
    ]  # fmt: skip
    assert segments[0].start == 0
    assert segments[-1].stop == len(module.steps)
    assert all(a.stop == b.start for a, b in itertools.pairwise(segments))


def test_segments_have_two_operators_with_weights_where_there_are_as_many() -> None:
    segments = find_segments(OnnxModule(residual()))
    assert [s.targets for s in segments] == [("side", "f"), ("y",)]
    one = find_segments(OnnxModule(residual()), least=100)
    assert [s.targets for s in one] == [("side", "y")]


def test_parts_one_after_the_other_are_the_whole() -> None:
    import torch

    module = OnnxModule(residual()).eval()
    x = torch.from_numpy(IMAGES[:3])
    given, outputs = {"x": x}, {}
    segments = find_segments(module, least=1)
    for segment, following in zip(segments, [*segments[1:], None], strict=True):
        found = module.run_part(segment.start, segment.stop, given, segment.targets)
        made = dict(zip(segment.targets, found, strict=True))
        outputs |= made
        given = {} if following is None else {following.source: made[following.source]}
    for name, whole in zip(module.graph.outputs, module(x), strict=True):
        assert torch.equal(outputs[name], whole)


def same(made: onnx.ModelProto, graph: ModelGraph) -> bool:
    """Returns whether a model has the weights of a graph, to the bit."""
    found, known = ({t.name: onnx.numpy_helper.to_array(t) for t in p.graph.initializer} for p in (made, graph.proto))
    return found.keys() == known.keys() and all(np.array_equal(found[name], known[name]) for name in known)


def distance(slim: onnx.ModelProto, graph: ModelGraph) -> float:
    feeds = {"x": IMAGES[-50:]}
    a, b = run_once(slim, feeds)[1], run_once(graph.proto, feeds)[1]
    return float(((a - b) ** 2).mean() / b.var())


def test_reconstruction_brings_a_slim_model_nearer_on_images_it_has_not_seen() -> None:
    graph = residual()
    slim, kept, *_ = halved(graph)
    told: list[tuple[int, int]] = []
    made, segments = reconstruct(
        graph, slim, kept, IMAGES[:200], n_steps=150, progress=lambda i, n: told.append((i, n))
    )
    assert told[-1] == (len(segments), len(segments))
    assert all(one.kept for one in segments)
    assert all(one.after < 0.7 * one.before for one in segments)
    before, after = distance(slim.proto, graph), distance(made, graph)
    assert after < 0.5 * before


def test_the_same_seed_gives_the_same_weights() -> None:
    graph = residual()
    slim, kept, *_ = halved(graph)
    first, _ = reconstruct(graph, slim, kept, IMAGES[:80], n_steps=20, seed=3)
    again, _ = reconstruct(graph, slim, kept, IMAGES[:80], n_steps=20, seed=3)
    other, _ = reconstruct(graph, slim, kept, IMAGES[:80], n_steps=20, seed=4)
    assert first.SerializeToString() == again.SerializeToString()
    assert first.SerializeToString() != other.SerializeToString()


def test_a_segment_that_overfits_keeps_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen images of noise teach nothing that holds for others."""
    from bocr_onnx.training import blockwise

    monkeypatch.setattr(blockwise, "MIN_IMAGES", 16)
    monkeypatch.setattr(blockwise, "RATE", 20.0)  # far too fast
    graph = residual()
    slim, kept, *_ = halved(graph)
    made, segments = reconstruct(graph, slim, kept, IMAGES[:16], n_steps=60)
    assert not any(one.kept for one in segments)
    assert same(made, slim)


def test_a_model_that_is_whole_stays_as_it_is() -> None:
    graph = residual()
    made, segments = reconstruct(graph, graph, {}, IMAGES[:80], n_steps=5)
    assert same(made, graph)
    assert all(one.before < 1e-9 for one in segments)


def test_who_says_stop_keeps_what_is_done() -> None:
    graph = residual()
    slim, kept, *_ = halved(graph)
    asked = iter([False, True])
    made, segments = reconstruct(graph, slim, kept, IMAGES[:80], n_steps=20, until=lambda: next(asked))
    assert len(segments) == 1
    assert not same(made, slim)


def test_what_cannot_be_reconstructed_is_refused() -> None:
    graph = residual()
    slim, kept, *_ = halved(graph)
    with pytest.raises(TrainingError, match="must have 64 images and an open batch, got 20"):
        reconstruct(graph, slim, kept, IMAGES[:20], n_steps=5)
    other = from_proto(onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        m (float[N, 3, 8, 8] x) => (float[N, 3, 8, 8] y) { y = Relu(x) }"""))  # fmt: skip
    with pytest.raises(TrainingError, match="must have the segments of its original"):
        reconstruct(other, slim, kept, IMAGES[:80], n_steps=5)


def test_memory_bounds_the_images_that_are_held() -> None:
    graph = residual()
    widest = 3 * 16 * 8 * 8 * 4  # w1's input, its output and the stream beside it, about
    assert images_within(graph, 1000, 1 << 40) == 1000
    assert 50 <= images_within(graph, 1000, 200 * widest) <= 200
    assert images_within(graph, 1000, 10) == 0


def test_prune_reconstructs_and_proves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bocr_onnx.pipeline.rebuild.N_STEPS", 300)
    given = {"flops": 0.3, "search": "uniform", "history": "none", "data": DIGITS, "score_images": 200}
    given |= {"recovery_images": 300, "final_images": 400}
    found = bocr_onnx.prune(DEMO, recover="blockwise", output=tmp_path / "b.onnx", **given)
    plain = bocr_onnx.prune(DEMO, recover="sequential", output=tmp_path / "s.onnx", **given)
    assert found.search["recover"] in ("blockwise", "sequential", "oneshot")
    assert found.outputs[0]["distortion"] < plain.outputs[0]["distortion"]
    assert found.proof["passed"]
    assert found.proof["max_rel_diff"] < 1e-4
    few = {**given, "recovery_images": 30, "score_images": 30}
    assert bocr_onnx.prune(DEMO, output=tmp_path / "f.onnx", **few).search["recover"] in ("sequential", "oneshot")


@pytest.mark.parametrize(("n", "few"), [(200, True), (300, False)])
def test_few_images_are_left_to_the_fit_layer_by_layer(
    n: int, few: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bocr_onnx.pipeline.rebuild.LEAST_TAUGHT", 400)
    told: list[str] = []
    given = {"flops": 0.3, "search": "uniform", "history": "none", "data": DIGITS, "final_images": 100}
    bocr_onnx.prune(
        DEMO, output=tmp_path / "b.onnx", progress=Telling(told), score_images=n, recovery_images=n - 20, **given
    )
    assert any("images are few, 400 would do" in text for text in told) == few


def test_a_time_limit_ends_with_what_is_done(tmp_path: Path) -> None:
    given = {"flops": 0.3, "search": "uniform", "history": "none", "data": DIGITS, "final_images": 400}
    told: list[str] = []
    found = bocr_onnx.prune(DEMO, recover_seconds=1e-6, output=tmp_path / "b.onnx", progress=Telling(told), **given)
    assert any(text.startswith("0 of 0 blocks") and "the time was up" in text for text in told)
    assert found.search["recover"] in ("sequential", "oneshot")
    assert found.proof["passed"]


@pytest.mark.parametrize("nearer", [True, False])
def test_images_that_taught_neither_decide(nearer: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reconstruction that is perfect on what it has learnt from, and poor or better on what it has not."""
    seen: list[int] = []

    def made(original: ModelGraph, slim: ModelGraph, kept: Any, images: Any, **_: Any) -> Any:
        seen.append(len(images))
        proto = onnx.ModelProto()
        proto.CopyFrom(slim.proto)
        if not nearer:
            for tensor in proto.graph.initializer:
                array = onnx.numpy_helper.to_array(tensor)
                if array.ndim == 4:
                    tensor.CopyFrom(onnx.numpy_helper.from_array(array * np.float32(1.5), tensor.name))
            return proto, ()
        return reconstruct(original, slim, kept, images, n_steps=60)

    monkeypatch.setattr("bocr_onnx.training.reconstruct", made)
    found = bocr_onnx.prune(
        DEMO, flops=0.3, search="uniform", history="none", data=DIGITS, output=tmp_path / "b.onnx",
        score_images=200, recovery_images=100, final_images=400,
    )  # fmt: skip
    assert seen == [260]
    assert (found.search["recover"] == "blockwise") == nearer


def test_a_slim_file_whose_nodes_have_other_numbers_is_reconstructed(tmp_path: Path) -> None:
    """A constant that the cut rewrites becomes an initializer: every later node moves up."""
    made = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 13]>
        m (float[N, 3, 8, 8] x) => (float[N, 5] y) {
            a = Conv <pads = [1, 1, 1, 1]> (x, w0)  s = Relu(a)
            p = Constant <value = int64[8] {0, 8, 0, 0, 0, 8, 0, 0}> ()  q = Pad(s, p)
            b = Conv <pads = [1, 1, 1, 1]> (s, w1)  c = Relu(b)  d = Conv <pads = [1, 1, 1, 1]> (c, w2)
            e = Add(d, q)  f = Relu(e)  g = GlobalAveragePool(f)  h = Flatten(g)  y = Gemm(h, w3)
        }""")
    rng = np.random.default_rng(0)
    for name, shape in {"w0": (16, 3, 3, 3), "w1": (24, 16, 3, 3), "w2": (32, 24, 3, 3), "w3": (32, 5)}.items():
        weights = (2 / np.prod(shape[1:])) ** 0.5 * rng.standard_normal(shape)
        made.graph.initializer.append(onnx.numpy_helper.from_array(weights.astype(np.float32), name))
    graph = from_proto(made)
    slim, kept, index, mask = halved(graph)
    assert [n.op for n in graph.nodes] != [n.op for n in slim.nodes]
    rebuilt, _ = reconstruct(graph, slim, kept, IMAGES[:80], n_steps=20)
    again = cut(index, mask, changed_operands(index, mask, from_proto(rebuilt)))
    (found,), (expected,) = run_once(again, {"x": IMAGES[:9]}), run_once(rebuilt, {"x": IMAGES[:9]})
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    told: list[str] = []
    report = bocr_onnx.prune(
        made, flops=0.4, search="uniform", round_to=1, recover="blockwise", data=IMAGES, history="none",
        score_images=60, recovery_images=120, output=tmp_path / "s.onnx", progress=Telling(told),
    )  # fmt: skip
    assert any("blocks reconstructed" in text for text in told)
    assert report.proof["passed"]


@pytest.mark.parametrize("better", [True, False])
def test_statistics_are_restored_where_that_agrees_more_often(
    better: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model before, the reconstructed one, and both forms of the latter; second is minus the distortion."""
    judged = iter([(0.9, -0.5), (0.9, -0.1), (0.9, -0.1), (0.95 if better else 0.9, -0.2)])
    monkeypatch.setattr("bocr_onnx.pipeline.rebuild._judged", lambda *_: next(judged))
    monkeypatch.setattr("bocr_onnx.training.reconstruct", partial(reconstruct, n_steps=5))
    marked: list[Any] = []

    def rescale(self: Any, mask: Any, weights: Any) -> Any:
        marked.append({at: array * np.float32(0.5) for at, array in weights.items()})
        return marked[-1]

    monkeypatch.setattr(Calibration, "rescale", rescale)
    found = bocr_onnx.prune(
        DEMO, flops=0.3, search="uniform", history="none", data=DIGITS, output=tmp_path / "b.onnx",
        score_images=200, recovery_images=100, final_images=100,
    )  # fmt: skip
    assert found.search["recover"] == "blockwise"
    made = [onnx.numpy_helper.to_array(t) for t in onnx.load(tmp_path / "b.onnx").graph.initializer]
    array = next(array for array in marked[-1].values() if array.ndim == 4)
    assert any(np.array_equal(other, array) for other in made) == better


class Telling(Silent):
    """Keeps what is said."""

    def __init__(self, told: list[str]) -> None:
        self.told = told

    def note(self, text: str) -> None:
        self.told.append(text)
