"""Open axes take the size of the images: smaller ones than the stand-ins, and larger ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import bocr_onnx
from bocr_onnx.errors import DataError
from bocr_onnx.graph import from_proto
from bocr_onnx.groups import build_index
from bocr_onnx.recovery.moments import collect_moments
from bocr_onnx.recovery.patches import find_affines
from bocr_onnx.recovery.windows import output_shape
from tests.oracle import build, proto

QUICK = {"flops": 0.6, "strategy": "sensitivity", "round_to": 1, "history": "none", "n_score": 12, "n_recovery": 12}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sized") / "m.onnx"
    made = proto(
        """m (float[N, 3, H, W] x) => (float[N, 4] y) {
            a = Conv <strides = [2, 2]> (x, U, b) r = Relu(a) c = Conv(r, V) s = Relu(c)
            g = GlobalAveragePool(s) f = Flatten(g) y = MatMul(f, K) }""",
        U=(8, 3, 3, 3),
        b=(8,),
        V=(16, 8, 3, 3),
        K=(16, 4),
    )
    onnx.save(made, path)
    return path


def images(folder: Path, side: int, n: int = 60, *, labelled: bool = False) -> Path:
    rng = np.random.default_rng(0)
    labels = {"labels": np.arange(n) % 4} if labelled else {}
    np.savez(folder / "x.npz", images=rng.integers(0, 256, (n, side, side + 2, 3), dtype=np.uint8), **labels)
    return folder / "x.npz"


def macs(side: int) -> int:
    first = ((side - 3) // 2 + 1, (side - 1) // 2 + 1)
    second = (first[0] - 2, first[1] - 2)
    return int(np.prod(first) * 8 * 27 + np.prod(second) * 16 * 72 + 64)


@pytest.mark.parametrize("side", [20, 250])
def test_a_run_counts_fits_and_proves_at_the_size_of_the_images(model: Path, tmp_path: Path, side: int) -> None:
    report = bocr_onnx.prune(
        model, **QUICK, data=images(tmp_path, side), preset="cifar10", output=tmp_path / "s.onnx", finetune=0.5
    )
    assert report.baseline.macs == macs(side)
    assert report.result.macs < 0.61 * macs(side)
    assert report.proof["passed"]
    assert onnx.load(tmp_path / "s.onnx").graph.input == onnx.load(model).graph.input


def test_a_size_that_is_asked_for_wins(model: Path, tmp_path: Path) -> None:
    data = images(tmp_path, 20, labelled=True)
    asked = {"x": (1, 3, 20, 22)}
    assert bocr_onnx.evaluate(model, data, preset="cifar10", input_shapes=asked).n_images == 60
    with pytest.raises(DataError, match=r"'x' \(3, 30, 30\), got \(3, 20, 22\)"):
        bocr_onnx.evaluate(model, data, preset="cifar10", input_shapes={"x": (1, 3, 30, 30)})


def test_a_model_that_takes_only_the_size_of_the_images(tmp_path: Path) -> None:
    path, nodes = tmp_path / "m.onnx", "c = Conv(x, U) r = Relu(c) f = Flatten(r) d = MatMul(f, V) y = Add(d, b)"
    made = proto(
        f"m (float[N, 3, H, W] x) => (float[N, 4] y) {{ {nodes} }}",
        U=(8, 3, 3, 3),
        V=(8 * 18 * 20, 4),
        b=(4,),
    )
    onnx.save(made, path)
    data = images(tmp_path, 20, labelled=True)
    found = bocr_onnx.evaluate(path, data)  # of the presets only those without a resize give this size
    assert found.preprocessing == "cifar10"
    trained = bocr_onnx.finetune(path, path, data, preset="cifar10", output=tmp_path / "f.onnx", epochs=0.1)
    assert trained.teacher == trained.before


def test_sizes_that_no_preset_gives_are_said(tmp_path: Path) -> None:
    text = "m (float[N, 3, H, W] x) => (float[N, 4] y) { f = Flatten(x) y = MatMul(f, V) }"
    onnx.save(proto(text, V=(3 * 7 * 9, 4)), tmp_path / "m.onnx")
    with pytest.raises(DataError, match=r"model's input 'x' \(3, \?, \?\): cifar10: ONNX Runtime must run"):
        bocr_onnx.evaluate(tmp_path / "m.onnx", images(tmp_path, 20, labelled=True))


@pytest.mark.parametrize("side", [6, 300])
def test_recovery_looks_at_the_whole_of_what_arrives(side: int) -> None:
    made = proto(
        "m (float[N, 2, H, W] x) => (float[N, 3, P, Q] y) { c = Conv <strides = [2, 2]> (x, U) y = Conv(c, V) }",
        U=(4, 2, 1, 1),
        V=(3, 4, 1, 1),
    )
    graph = from_proto(made)
    assert graph.shapes["x"] == (1, 2, 224, 224)
    affines = find_affines(build_index(graph))
    x = np.random.default_rng(0).normal(size=(4, 2, side, side + 1)).astype(np.float32)
    found = collect_moments(graph, affines, x, n_rows=10**7)
    assert found[0].n == 4 * ((side + 1) // 2) * ((side + 2) // 2)
    assert found[0].mean[0] == pytest.approx(x[:, :, ::2, ::2].mean(axis=(0, 2, 3)), abs=1e-5)


@pytest.mark.parametrize(
    ("conv", "size"),
    [
        ("Conv <pads = [1, 0, 2, 1], dilations = [2, 1], strides = [1, 3]>", (7, 11)),
        ('Conv <auto_pad = "SAME_UPPER", strides = [2, 2]>', (7, 8)),
        ('Conv <auto_pad = "VALID", strides = [2, 3]>', (9, 10)),
        ("Conv", (5, 3)),
    ],
)
def test_the_shape_of_an_output_follows_its_input(conv: str, size: tuple[int, int]) -> None:
    text = f"m (float[2, 3, {size[0]}, {size[1]}] x) => (float[2, 4, P, Q] y) {{ y = {conv} (x, U) }}"
    graph = build(text, U=(4, 3, 3, 3))
    x = np.zeros(graph.shapes["x"], np.float32)
    assert output_shape(graph.nodes[0], (3, 3), x)[2:] == graph.shapes["y"][2:]


def test_images_must_be_what_a_model_reads_at_once(tmp_path: Path) -> None:
    text = "m (float[2, 3, 20, 22] x) => (float[1, 4] y) { f = Reshape(x, all) y = MatMul(f, V) }"
    onnx.save(proto(text, V=(2 * 3 * 440, 4), all=[1, -1]), tmp_path / "m.onnx")
    with pytest.raises(DataError, match=r"must become the model's input 'x' \(2, 3, 20, 22\), got \(3, 20, 22\)"):
        bocr_onnx.evaluate(tmp_path / "m.onnx", images(tmp_path, 20, labelled=True), preset="cifar10")


def test_rounds_and_their_teacher_are_read_at_the_size_of_the_images(tmp_path: Path) -> None:
    """A model that takes no other size than that of the images, 20 x 22."""
    made = proto(
        """m (float[N, 3, H, W] x) => (float[N, 4] y) {
            c = Conv(x, U) r = Relu(c) d = Conv(r, V) s = Relu(d)
            p = AveragePool <kernel_shape = [16, 18]> (s) f = Flatten(p) y = Gemm(f, K) }""",
        U=(8, 3, 3, 3),
        V=(16, 8, 3, 3),
        K=(16, 4),
    )
    onnx.save(made, tmp_path / "m.onnx")
    report = bocr_onnx.prune(
        tmp_path / "m.onnx",
        **QUICK,
        steps=2,
        finetune=0.25,
        data=images(tmp_path, 20),
        preset="cifar10",
        output=tmp_path / "s.onnx",
    )
    assert report.baseline.macs == 18 * 20 * 8 * 27 + 16 * 18 * 16 * 72 + 64
    assert report.proof["passed"]
    assert (
        bocr_onnx.apply(
            tmp_path / "m.onnx",
            tmp_path / "s.run" / "plan.json",
            tmp_path / "a.onnx",
            input_shapes={"": (1, 3, 20, 22)},
        ).result.macs
        == report.result.macs
    )
