"""Sizes of open axes: those that are asked for, in every command."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import bocr_onnx
from bocr_onnx.errors import ModelError, UsageError
from bocr_onnx.graph import load, other_feeds
from bocr_onnx.groups import build_index
from bocr_onnx.options import parse_shapes
from bocr_onnx.pipeline.model import read_model
from bocr_onnx.runtime import run_once
from bocr_onnx.slimming import cut, prove_cut
from tests.oracle import proto, random_mask

QUICK = {"flops": 0.6, "strategy": "uniform", "round_to": 1, "history": "none"}


def write(path: Path, text: str, **constants: object) -> Path:
    onnx.save(proto(text, **constants), path)
    return path


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text recognizer that takes any width, and one height: 48."""
    return write(
        tmp_path_factory.mktemp("reader") / "reader.onnx",
        """m (float[N, 3, H, W] x) => (float[N, 16, P, Q] y) {
            a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 1]> (x, U, b)
            r = Relu (a)
            p = AveragePool <kernel_shape = [24, 1]> (r)
            m = ReduceMean <axes = [2], keepdims = 1> (r)
            c = Concat <axis = 1> (p, m)
            y = Conv <kernel_shape = [1, 1]> (c, V) }""",
        U=(32, 3, 3, 3),
        b=(32,),
        V=(16, 64, 1, 1),
    )


def reader_macs(width: int, channels: int = 32) -> int:
    return 24 * width * channels * 27 + width * 16 * 2 * channels


def widths_of(path: Path) -> list[int]:
    return [t.dims[0] for t in onnx.load(path).graph.initializer if t.name == "U"]


def test_texts_become_shapes() -> None:
    assert parse_shapes(["in:0:1x3x48x320", "b:2"]) == {"in:0": (1, 3, 48, 320), "b": (2,)}
    assert parse_shapes(["1x3x4x5"]) == {"": (1, 3, 4, 5)}


@pytest.mark.parametrize("text", ["x", "x:", "x:1x0", "x:1x-3", "x:1x?x3", "x:1,3", "", "x:1x²", "x:" + "9" * 5000])
def test_texts_that_are_no_shapes(text: str) -> None:
    with pytest.raises(UsageError, match="`input_shapes` must be NAME:SIZES"):
        parse_shapes([text])


def test_a_shape_that_is_given_twice() -> None:
    with pytest.raises(UsageError, match="once for input 'x'"):
        parse_shapes(["x:1x3", "x:1x4"])


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"y": (1, 3, 48, 64)}, "must be of an input, got one of 'y'"),
        ({"x": (1, 4, 48, 64)}, r"must be \?x3x\?x\? with positive sizes"),
        ({"x": (1, 3, 48)}, r"must be \?x3x\?x\? with positive sizes"),
        ({"x": (1, 3, 48, 0)}, "with positive sizes"),
        ({"x": (1, 3, 48, 1 << 24)}, "at most 67108864 elements"),
        ({"x": (1, 3, 48, 64.0)}, "must be whole numbers"),
    ],
)
def test_shapes_that_do_not_fit(reader: Path, tmp_path: Path, shapes: dict[str, tuple[int, ...]], message: str) -> None:
    for command in (
        lambda: bocr_onnx.inspect(reader, input_shapes=shapes),
        lambda: bocr_onnx.prune(reader, **QUICK, input_shapes=shapes, output=tmp_path / "s.onnx"),
        lambda: bocr_onnx.apply(reader, tmp_path / "plan.json", tmp_path / "s.onnx", input_shapes=shapes),
        lambda: bocr_onnx.evaluate(reader, _images(tmp_path), preset="cifar10", input_shapes=shapes),
        lambda: bocr_onnx.finetune(
            reader, reader, _images(tmp_path), preset="cifar10", output=tmp_path / "f.onnx", input_shapes=shapes
        ),
    ):
        with pytest.raises(UsageError, match=message):
            command()
    assert not list(tmp_path.glob("*.onnx"))


def _images(folder: Path) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (24, 48, 64, 3), dtype=np.uint8)
    np.savez(folder / "x.npz", images=images, labels=np.arange(24) % 2)
    return folder / "x.npz"


def test_an_unknown_input_names_the_nearest(reader: Path) -> None:
    with pytest.raises(UsageError) as info:
        bocr_onnx.inspect(reader, input_shapes={"xx": (1, 3, 48, 64)})
    assert "Did you mean 'x'?" in info.value.hint


def test_a_model_is_pruned_at_the_size_that_is_asked_for(reader: Path, tmp_path: Path) -> None:
    slim, shapes = tmp_path / "s.onnx", {"x": (1, 3, 48, 64)}
    report = bocr_onnx.prune(reader, **QUICK, input_shapes=shapes, output=slim)
    assert report.baseline.macs == reader_macs(64) == bocr_onnx.inspect(reader, input_shapes=shapes).cost.macs
    assert report.result.macs == reader_macs(64, *widths_of(slim))
    assert onnx.load(slim).graph.input[0] == onnx.load(reader).graph.input[0]
    session = onnxruntime.InferenceSession(str(slim))
    for width in (40, 200):
        assert session.run(None, {"x": np.zeros((2, 3, 48, width), np.float32)})[0].shape == (2, 16, 1, width)
    applied = bocr_onnx.apply(reader, tmp_path / "s.run" / "plan.json", tmp_path / "a.onnx", input_shapes=shapes)
    assert applied.result.macs == report.result.macs


def test_a_resumed_run_keeps_its_shapes(reader: Path, tmp_path: Path) -> None:
    asked = {"x": (1, 3, 48, 64)}
    first = bocr_onnx.prune(reader, **QUICK, input_shapes=asked, output=tmp_path / "s.onnx")
    again = bocr_onnx.prune(reader, resume=tmp_path / "s.run")
    assert again.baseline.macs == first.baseline.macs == reader_macs(64)


def test_one_input_needs_no_name_and_several_do(reader: Path, tmp_path: Path) -> None:
    assert bocr_onnx.inspect(reader, input_shapes={"": (1, 3, 48, 64)}).cost.macs == reader_macs(64)
    text = "m (float[N, T, 4] a, float[N, T, 4] b) => (float[N, T, 4] y) { y = Add(a, b) }"
    two = write(tmp_path / "two.onnx", text)
    with pytest.raises(UsageError, match="got one of ''"):
        bocr_onnx.inspect(two, input_shapes={"": (1, 7, 4)})
    assert load(two, {"a": (2, 7, 4)}).shapes["b"] == (2, 7, 4)


def test_a_batch_that_is_asked_for_is_counted_out(reader: Path) -> None:
    assert bocr_onnx.inspect(reader, input_shapes={"x": (4, 3, 48, 64)}).cost.macs == reader_macs(64)


def test_the_proof_finds_a_second_size_that_the_model_takes(reader: Path) -> None:
    graph = load(reader, {"x": (1, 3, 48, 64)})
    index = build_index(graph)
    mask = random_mask(index, 0)
    slim = cut(index, mask)
    assert [f["x"].shape for f in other_feeds(graph, batch=2)] == [(2, 3, 64, 96), (2, 3, 64, 64), (2, 3, 48, 96)]
    ran: list[tuple[int, ...]] = []

    def run(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        found = run_once(model, feeds)
        ran.append(feeds["x"].shape)
        return found

    assert prove_cut(index, mask, slim, run).passed
    assert ran.count((2, 3, 48, 96)) >= 3  # the original, the masked original and the slim model


class Notes:
    """Keeps what a user would be told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @contextmanager
    def task(self, description: str) -> Iterator[Callable[..., None]]:
        yield lambda *_: None

    def detail(self, text: str) -> None:
        pass

    def note(self, text: str) -> None:
        self.told.append(text)


def test_other_sizes_are_tried_where_the_stand_ins_do_not_run(reader: Path, tmp_path: Path) -> None:
    notes = Notes()
    report = bocr_onnx.prune(reader, **QUICK, output=tmp_path / "s.onnx", progress=notes)
    assert report.proof["passed"]
    assert report.baseline.macs == reader_macs(320) == bocr_onnx.inspect(reader, progress=notes).cost.macs
    bocr_onnx.apply(reader, tmp_path / "s.run" / "plan.json", tmp_path / "a.onnx", progress=notes)
    assert (
        notes.told
        == [
            "open axes of 'x' taken as 48x320; name others with `input_shapes=x:1x3x48x320`",
        ]
        * 3
    )


@pytest.mark.parametrize(
    ("declared", "nodes", "constants", "taken"),
    [
        (
            "float[N, H, W, 3] x",
            "t = Transpose <perm = [0, 3, 1, 2]> (x) c = Conv <strides = [8, 8]> (t, K)"
            " f = Flatten(c) y = MatMul(f, V)",
            {"K": (4, 3, 8, 8), "V": (64, 2)},
            (1, 32, 32, 3),
        ),
        (
            "float[N, T, 4] x, float[N, T] z",
            "u = Unsqueeze(z, last) s = Add(x, u) f = Flatten(s) y = MatMul(f, V)",
            {"V": (400, 2), "last": [2]},
            (1, 100, 4),
        ),
        (
            "float[N, F, T] x",
            "c = Conv(x, K) f = Flatten(c) y = MatMul(f, V)",
            {"K": (4, 80, 3), "V": (392, 2)},
            (1, 80, 100),
        ),
    ],
    ids=["channels last", "two inputs that share their length", "spectrogram"],
)
def test_sizes_by_rank_and_layout(
    tmp_path: Path, declared: str, nodes: str, constants: dict[str, object], taken: tuple[int, ...]
) -> None:
    path = write(tmp_path / "m.onnx", f"m ({declared}) => (float[N, 2] y) {{ {nodes} }}", **constants)
    graph = read_model(path)
    assert graph.shapes["x"] == taken
    assert graph.symbolic["x"] == load(path).symbolic["x"]


def test_a_model_that_runs_is_left_at_its_stand_ins(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", "m (float[N, 3, H, W] x) => (float[N, 3, H, W] y) { y = Relu(x) }")
    told: list[str] = []
    assert read_model(path, note=told.append).shapes["x"] == (1, 3, 224, 224)
    assert not told


def test_a_model_that_runs_at_no_size_says_how_to_name_one(tmp_path: Path) -> None:
    text = "m (float[N, 3, H, W] x) => (float[N, 2] y) { f = Flatten(x) y = MatMul(f, V) }"
    path = write(tmp_path / "m.onnx", text, V=(3 * 7 * 9, 2))
    with pytest.raises(ModelError) as info:
        read_model(path)
    assert "`input_shapes=x:1x3x224x224`" in info.value.hint
    with pytest.raises(ModelError, match="must run"):
        read_model(path, {"x": (1, 3, 48, 320)})
    assert read_model(path, {"x": (1, 3, 7, 9)}).shapes["y"] == (1, 2)


def test_a_size_that_is_asked_for_is_not_replaced(reader: Path) -> None:
    for shapes in ({"x": (1, 3, 64, 64)}, {"": (1, 3, 64, 64)}):
        with pytest.raises(ModelError, match="must run"):
            read_model(reader, shapes)


def test_inspect_warns_of_what_prune_will_refuse(tmp_path: Path) -> None:
    text = "m (double[1, 3, 8, 8] x) => (double[1, 4, 8, 8] y) { c = Conv(x, W) r = Relu(c) y = Conv(r, V) }"
    write(tmp_path / "m.onnx", text, W=np.ones((6, 3, 1, 1)), V=np.ones((4, 6, 1, 1)))
    found = bocr_onnx.inspect(tmp_path / "m.onnx")
    assert found.groups
    assert found.warning.startswith("prune will refuse this file: ")
    assert found.as_json()["warning"] == found.warning
    with pytest.raises(ModelError, match="must run on random inputs"):
        bocr_onnx.prune(tmp_path / "m.onnx", flops=0.5, search="uniform", output=tmp_path / "s.onnx")
