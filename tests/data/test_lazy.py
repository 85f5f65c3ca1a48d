"""Inputs are the same however their pixels are kept: as inputs, as pixels in memory, or in a file."""

from __future__ import annotations

import gc
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bocr_onnx.data import LazyInputs, Preprocessing, Samples, in_pieces, joined, load_preprocessing
from bocr_onnx.data.lazy import PixelFile
from bocr_onnx.errors import DataError

N, SIDE = 300, 12
EACH = SIDE * SIDE * 3
MEMORY = {"as inputs": 4 * N * EACH, "as pixels": N * EACH, "in a file": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("images")
    for i, picture in enumerate(np.random.default_rng(0).integers(0, 256, (N, SIDE, SIDE, 3), dtype=np.uint8)):
        Image.fromarray(picture).save(made / f"{i:03d}.png")
    return made


@pytest.fixture
def samples(folder: Path) -> Samples:
    return Samples(images=tuple(sorted(folder.iterdir())), labels=None, classes=(), name="images")


@pytest.mark.parametrize("kept", MEMORY)
@pytest.mark.parametrize("preset", ["cifar10", "raw-nhwc"])
def test_what_is_kept_in_any_way_is_the_same_input(samples: Samples, kept: str, preset: str) -> None:
    preprocessing = load_preprocessing(preset)
    expected = samples.load(preprocessing)
    found = samples.open(preprocessing, MEMORY[kept])
    assert isinstance(found, np.ndarray) is (kept == "as inputs")
    assert isinstance(getattr(found, "pixels", None), PixelFile) is (kept == "in a file")
    assert found.shape == expected.shape
    assert len(found) == N
    rng = np.random.default_rng(0)
    for rows in (slice(0, 7), slice(250, 400), slice(5, 5), slice(None), rng.permutation(N)[:40], np.array([3, 4, 9])):
        assert found[rows].dtype == np.float32
        assert np.array_equal(found[rows], expected[rows])
    assert np.array_equal(np.concatenate(list(in_pieces(found, 7))), expected)


def test_a_file_goes_with_its_images_and_survives_a_copy(samples: Samples, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = samples.open(load_preprocessing("cifar10"), 1)
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size == N * EACH
    copy = pickle.loads(pickle.dumps(found))
    assert np.array_equal(copy[:3], found[:3])
    del copy
    gc.collect()
    assert path.exists()
    del found
    gc.collect()
    assert not path.exists()


def test_other_element_types_and_joined_inputs() -> None:
    keeps = Preprocessing("raw", "L", None, None, 1, (0.5,), (1,))
    pixels = np.arange(24, dtype=np.uint8).reshape(6, 2, 2, 1)
    lazy = LazyInputs(pixels, keeps)
    assert lazy.cast(np.float16)[:2].dtype == np.float16
    assert lazy.cast(np.int8)[:1].ravel().tolist() == np.rint(np.arange(4) - 0.5).astype(int).tolist()
    both = joined(lazy, lazy)
    whole = np.concatenate([lazy[:], lazy[:]])
    assert both.shape == whole.shape
    for rows in (slice(0, 12), slice(4, 9), slice(7, 30), slice(2, 3)):
        assert np.array_equal(both[rows], whole[rows])
    assert np.array_equal(joined(lazy[:], lazy[:]), whole)


def test_images_of_two_sizes_are_refused_before_they_are_kept(samples: Samples, folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (5, 9)).save(tmp_path / "odd.png")
    mixed = Samples(images=(*samples.images, tmp_path / "odd.png"), labels=None, classes=(), name="images")
    with pytest.raises(DataError, match=r"must have the shape \(3, 12, 12\) .* after preprocessing, got \(3, 9, 5\)"):
        mixed.open(load_preprocessing("cifar10"), 1)
