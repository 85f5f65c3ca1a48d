from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bocr_onnx.data import Preprocessing, Samples, digest
from bocr_onnx.errors import DataError, UsageError

GREY = Preprocessing(name="g", channels="L", resize=None, crop=None, scale=1.0, mean=(0.0,), std=(1.0,))


def write_images(folder: Path, n: int) -> tuple[Path, ...]:
    paths = tuple(folder / f"{i}.png" for i in range(n))
    for i, path in enumerate(paths):
        Image.new("L", (4, 3), i).save(path)
    return paths


def in_files(folder: Path) -> Samples:
    labels = np.arange(5, dtype=np.int64)
    return Samples(images=write_images(folder, 5), labels=labels, classes=tuple("abcde"), name="files")


def in_array(_: Path) -> Samples:
    images = np.repeat(np.arange(5, dtype=np.uint8), 12).reshape(5, 3, 4)
    return Samples(images=images, labels=None, classes=(), name="array")


def in_inputs(_: Path) -> Samples:
    images = np.repeat(np.arange(5, dtype=np.float32), 12).reshape(5, 1, 3, 4)
    return Samples(images=images, labels=None, classes=(), name="inputs")


KINDS = pytest.mark.parametrize("kind", [in_files, in_array, in_inputs])
Kind = Callable[[Path], Samples]


@KINDS
def test_every_kind_loads_alike(kind: Kind, tmp_path: Path) -> None:
    samples = kind(tmp_path)
    inputs = samples.load(GREY)
    assert len(samples) == 5
    assert inputs.shape == (5, 1, 3, 4)
    assert inputs.dtype == np.float32
    np.testing.assert_array_equal(inputs[:, 0, 0, 0], range(5))
    assert samples.preprocessed == (kind is in_inputs)


@KINDS
def test_batches_are_the_load_in_pieces(kind: Kind, tmp_path: Path) -> None:
    samples = kind(tmp_path)
    batches = list(samples.batches(GREY, 2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(batches), samples.load(GREY))


@KINDS
def test_take_keeps_the_order_asked_for(kind: Kind, tmp_path: Path) -> None:
    samples = kind(tmp_path).take([3, 0])
    np.testing.assert_array_equal(samples.load(GREY)[:, 0, 0, 0], [3, 0])
    if samples.labels is not None:
        assert samples.labels.tolist() == [3, 0]
    assert len(kind(tmp_path).take([])) == 0


def test_load_of_more_than_a_chunk() -> None:
    images = (np.arange(600) % 251).astype(np.uint8).reshape(600, 1, 1)
    samples = Samples(images=images, labels=None, classes=(), name="many")
    np.testing.assert_array_equal(samples.load(GREY).ravel(), images.ravel())


def test_preprocessed_images_need_no_preprocessing_and_are_copied() -> None:
    samples = in_inputs(Path())
    samples.load()[:] = 7
    assert samples.load()[0, 0, 0, 0] == 0


def test_pixels_need_a_preprocessing() -> None:
    with pytest.raises(UsageError, match="preprocessing must be given for the images of array"):
        in_array(Path()).load()


def test_a_batch_of_none() -> None:
    with pytest.raises(UsageError, match="batch size must be at least 1, got 0"):
        next(in_array(Path()).batches(GREY, 0))


def test_no_images() -> None:
    with pytest.raises(DataError, match="array must hold at least one image, got none"):
        in_array(Path()).take([]).load(GREY)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_two_shapes(tmp_path: Path, batch_size: int) -> None:
    samples = in_files(tmp_path)
    Image.new("L", (9, 9)).save(tmp_path / "3.png")
    with pytest.raises(DataError, match=r"3\.png must have the shape \(1, 3, 4\) of .*0\.png") as info:
        list(samples.batches(GREY, batch_size))
    assert info.value.hint == "Give a preset with resize and crop."


@pytest.mark.parametrize("content", [b"", b"no image", None], ids=["empty", "text", "truncated"])
def test_an_unreadable_image_is_named(tmp_path: Path, content: bytes | None) -> None:
    samples = in_files(tmp_path)
    victim = tmp_path / "2.png"
    victim.write_bytes(victim.read_bytes()[:50] if content is None else content)
    with pytest.raises(DataError, match=r"2\.png: image must be readable") as info:
        samples.load(GREY)
    assert "Replace the file" in info.value.hint


def test_a_vanished_image_is_named(tmp_path: Path) -> None:
    samples = in_files(tmp_path)
    (tmp_path / "2.png").unlink()
    with pytest.raises(DataError, match=r"2\.png: image must be readable"):
        samples.load(GREY)
    with pytest.raises(DataError, match=r"2\.png must be readable: No such file"):
        digest(samples)


def test_a_fault_of_preprocessing_names_the_image(tmp_path: Path) -> None:
    crop = replace(GREY, crop=(8, 8))
    with pytest.raises(DataError, match=r"0\.png: image must be at least 8 x 8"):
        in_files(tmp_path).take([0]).load(crop)
    with pytest.raises(DataError, match="image 0 of array: image must be at least 8 x 8"):
        in_array(tmp_path).take([0]).load(crop)


@KINDS
def test_digest_sees_images_and_their_order(kind: Kind, tmp_path: Path) -> None:
    samples = kind(tmp_path)
    assert digest(samples) == digest(kind(tmp_path))
    assert len({digest(samples), digest(samples.take([0, 1])), digest(samples.take([1, 0]))}) == 3


def test_digest_sees_labels_and_sizes_but_not_the_place(tmp_path: Path) -> None:
    (tmp_path / "a" / "x").mkdir(parents=True)
    (tmp_path / "b" / "x").mkdir(parents=True)
    first, second = in_files(tmp_path / "a" / "x"), in_files(tmp_path / "b" / "x")
    assert digest(first) == digest(second)
    assert digest(first) != digest(replace(first, labels=None))
    with (tmp_path / "b" / "x" / "0.png").open("ab") as stream:
        stream.write(b"more")
    assert digest(first) != digest(second)
