from __future__ import annotations

import builtins
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bocr_onnx.data import Preprocessing, Samples, open_data
from bocr_onnx.errors import DataError

GREY = Preprocessing(name="g", channels="L", resize=None, crop=None, scale=1.0, mean=(0.0,), std=(1.0,))


def image(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), value).save(path)


def classes(folder: Path, *names: str) -> None:
    for label, name in enumerate(names):
        for i in range(2):
            image(folder / name / f"{i}.png", label)


def manifest(folder: Path, text: str, *names: str) -> None:
    for name in names:
        image(folder / name)
    folder.mkdir(exist_ok=True)
    (folder / "manifest.csv").write_text(text)


def names_of(samples: Samples) -> list[str]:
    assert isinstance(samples.images, tuple)
    return [path.name for path in samples.images]


def labels_of(samples: Samples | None) -> list[int]:
    assert samples is not None
    assert samples.labels is not None
    assert samples.labels.dtype == np.int64
    return samples.labels.tolist()


def refused(path: str | Path) -> DataError:
    with pytest.raises(DataError) as info:
        open_data(path)
    return info.value


# Folders


@pytest.mark.parametrize("held_out", ["val", "test", "validation"])
def test_train_and_held_out(tmp_path: Path, held_out: str) -> None:
    classes(tmp_path / "train", "cat", "ant")
    classes(tmp_path / held_out, "ant", "cat")
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "train" / "ant" / "notes.txt").write_text("not an image")
    pools = open_data(tmp_path)
    assert pools.train is not None
    assert pools.held_out is not None
    assert pools.single is None
    assert pools.labelled
    assert pools.path == str(tmp_path)
    assert pools.train.classes == ("ant", "cat")
    assert labels_of(pools.train) == [0, 0, 1, 1]
    assert pools.held_out.name == str(tmp_path / held_out)
    np.testing.assert_array_equal(pools.train.load(GREY)[:, 0, 0, 0], [1, 1, 0, 0])


def test_val_goes_before_test(tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        classes(tmp_path / name, "a", "b")
    pools = open_data(tmp_path)
    assert pools.held_out is not None
    assert pools.held_out.name.endswith("val")


@pytest.mark.parametrize(("train", "val", "lacking"), [("abc", "ab", "val"), ("ab", "abc", "train")])
def test_different_classes(tmp_path: Path, train: str, val: str, lacking: str) -> None:
    classes(tmp_path / "train", *train)
    classes(tmp_path / "val", *val)
    error = refused(tmp_path)
    assert "must have the same class folders" in error.message
    assert f"{tmp_path / lacking} lacks 'c'" in error.message
    assert "Add the missing class folders" in error.hint


def test_class_folders_without_train(tmp_path: Path) -> None:
    classes(tmp_path, "b", "a")
    pools = open_data(str(tmp_path))
    assert pools.train is None
    assert pools.held_out is None
    assert labels_of(pools.single) == [0, 0, 1, 1]


def test_plain_images(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.png"):
        image(tmp_path / name)
    pools = open_data(tmp_path)
    assert pools.single is not None
    assert names_of(pools.single) == ["a.png", "b.PNG"]
    assert pools.single.labels is None
    assert not pools.labelled


def test_an_empty_class_folder(tmp_path: Path) -> None:
    classes(tmp_path, "a", "b")
    (tmp_path / "c").mkdir()
    error = refused(tmp_path)
    assert error.message == f"class folder {tmp_path / 'c'} must hold images directly, got none"
    assert "Remove the empty class folder" in error.hint


def test_a_class_folder_of_folders(tmp_path: Path) -> None:
    classes(tmp_path, "a", "b")
    image(tmp_path / "c" / "deep" / "0.png")
    assert "must hold images directly, got the folder deep/" in refused(tmp_path).message


def test_an_empty_folder(tmp_path: Path) -> None:
    error = refused(tmp_path)
    assert error.message == f"folder {tmp_path} must hold images or class folders, got neither"
    assert ".png" in error.hint


def test_images_beside_class_folders(tmp_path: Path) -> None:
    classes(tmp_path, "a", "b")
    image(tmp_path / "stray.png")
    error = refused(tmp_path)
    assert "must hold either images or class folders, got both: stray.png and a/" in error.message
    assert "manifest.csv" in error.hint


def test_one_class_folder(tmp_path: Path) -> None:
    classes(tmp_path, "images")
    error = refused(tmp_path)
    assert "must hold at least two class folders, got only images/" in error.message
    assert error.hint == f"For images without labels give {tmp_path / 'images'} itself."


def test_train_without_val(tmp_path: Path) -> None:
    classes(tmp_path / "train", "a", "b")
    error = refused(tmp_path)
    assert "got only train/" in error.message
    assert "Put train/ and val/ side by side" in error.hint


# Manifests


def test_manifest(tmp_path: Path) -> None:
    manifest(tmp_path, "path,label\nx/b.png,3\na.png, 1\n", "a.png", "x/b.png")
    pools = open_data(tmp_path)
    assert pools.single is not None
    assert names_of(pools.single) == ["b.png", "a.png"]
    assert labels_of(pools.single) == [3, 1]
    assert pools.single.classes == ("0", "1", "2", "3")
    assert pools.labelled


def test_manifest_without_labels(tmp_path: Path) -> None:
    manifest(tmp_path, "\ufeffpath\na.png\n", "a.png")
    pools = open_data(tmp_path)
    assert pools.single is not None
    assert pools.single.labels is None
    assert not pools.labelled


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("label\n1\n", "must have the header path,label, or the names of the model's inputs, got label", "first line"),
        ("", "must have the header path,label, or the names of the model's inputs, got an empty file", "first line"),
        ("path,label\n", "must list at least one image, got none", "Add lines"),
        ("path,label\n../a.png,1\n", "line 2: path must be inside", "relative to its folder"),
        ("path,label\n/etc/hosts,1\n", "line 2: path must be inside", "relative to its folder"),
        ("path,label\n,1\n", "line 2: path must be inside", "relative to its folder"),
        ("path,label\nb.png,1\n", "line 2: path must name a file", "remove the line"),
        ("path,label\n.,1\n", "line 2: path must name a file", "remove the line"),
        ("path,label\na\0.png,1\n", "line 2: path must be one of a file", ""),
        ("path,label\na.png,1\n./a.png,1\n", "line 3: path must be listed once", "Remove one of the lines"),
        ("path,label\na.png,-1\n", "line 2: label must be a whole number", "index of the class"),
        ("a,b\n1,a.png\n2,x.npy\n", "line 3: b must name a file", "remove the line"),
        ("a,b\n1,a.png\n2,../a.png\n", "line 3: b must be inside", "relative to its folder"),
        ("a\n1\na.png\n", "must have one shape, (), got", "Resize or pad"),
        ("a\n1e999\n", "must be finite", ""),
        ("path,label\na.png,cat\n", "got 'cat'", "index of the class"),
        ("path,label\na.png\n", "got ''", "index of the class"),
        ("path,label\na.png,99999999999\n", "from 0 to 999999", "index of the class"),
        ('path,label\n"a.png,1\n', "must be a readable CSV file", "UTF-8"),
    ],
)
def test_bad_manifests(tmp_path: Path, text: str, message: str, hint: str) -> None:
    manifest(tmp_path / "data", text, "a.png")
    image(tmp_path / "a.png")
    error = refused(tmp_path / "data")
    assert str(tmp_path / "data" / "manifest.csv") in error.message
    assert message in error.message
    assert hint in error.hint


def test_a_manifest_does_not_follow_links_out(tmp_path: Path) -> None:
    image(tmp_path / "secret.png")
    manifest(tmp_path / "data", "path\nlink.png\n")
    (tmp_path / "data" / "link.png").symlink_to(tmp_path / "secret.png")
    assert "path must be inside" in refused(tmp_path / "data").message


def test_a_manifest_of_bytes(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_bytes(b"path\n\xff\n")
    assert "must be a readable CSV file" in refused(tmp_path).message


# Arrays


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path / "data.npz", **arrays)
    return path / "data.npz"


PIXELS = np.zeros((3, 4, 4), np.uint8)


def test_npz_of_one_pool(tmp_path: Path) -> None:
    pools = open_data(npz(tmp_path, images=PIXELS, labels=np.array([0, 2, 1], np.uint8)))
    assert pools.train is None
    assert pools.single is not None
    assert labels_of(pools.single) == [0, 2, 1]
    assert pools.single.classes == ("0", "1", "2")
    assert pools.labelled


def test_npz_of_two_pools(tmp_path: Path) -> None:
    inputs = np.ones((2, 3, 5, 6), np.float32)
    pools = open_data(npz(tmp_path, images=inputs, val_images=inputs[:1]))
    assert pools.train is not None
    assert pools.held_out is not None
    assert pools.train.preprocessed
    assert (len(pools.train), len(pools.held_out), pools.labelled) == (2, 1, False)


@pytest.mark.parametrize(
    ("arrays", "message", "hint"),
    [
        ({"labels": [0]}, "must have an array 'images', or arrays named like the model's inputs, got labels", "savez"),
        ({"images": PIXELS, "label": [0]}, "array 'label' must be a known one", "Did you mean 'labels'?"),
        ({"images": PIXELS, "val_labels": [0]}, "must have 'val_images' for its 'val_labels'", "optional"),
        (
            {"images": PIXELS, "labels": [0, 1, 2], "val_images": PIXELS},
            "must have both 'labels' and 'val_labels', or neither",
            "optional",
        ),
        ({"images": PIXELS, "labels": [0, 1]}, "as many as the images, got 2 for 3", ""),
        ({"images": PIXELS, "labels": [0, -1, 0]}, "got -1 at row 1", "Count classes from 0"),
        ({"images": PIXELS, "labels": [0, 1, 2**40]}, "at row 2", "Count classes from 0"),
        (
            {"images": PIXELS, "labels": ["a", "b", "c"]},
            "whole numbers, or (N,) or (N, K) numbers, got (3,) <U1",
            "index of the class",
        ),
        ({"images": PIXELS, "labels": [[0], [1], [2]]}, "got (3, 1) int64", "index of the class"),
        ({"images": PIXELS.astype(np.float64)}, "got (3, 4, 4) float64", "channels last"),
        ({"images": np.zeros((2, 3, 8, 8), np.uint8)}, "got (2, 3, 8, 8) uint8", "channels last"),
        ({"images": np.zeros((0, 8, 8), np.uint8)}, "at least one image, got shape (0, 8, 8)", ""),
        ({"images": np.full((1, 1, 2, 2), np.nan, np.float32)}, "must be finite", "Preprocess"),
        ({"images": np.array([None, {}], dtype=object)}, "without pickled objects", "plain arrays only"),
    ],
)
def test_bad_npz(tmp_path: Path, arrays: dict[str, Any], message: str, hint: str) -> None:
    path = npz(tmp_path, **arrays)
    error = refused(path)
    assert str(path) in error.message
    assert message in error.message
    assert hint in error.hint


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"\x80\x04K\x01."])
def test_npz_that_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    assert f"{path} must be a readable .npz file" in refused(path).message


def test_npy_called_npz(tmp_path: Path) -> None:
    with (tmp_path / "data.npz").open("wb") as stream:
        np.save(stream, PIXELS)
    assert "it is a single .npy array" in refused(tmp_path / "data.npz").message


# Torchvision


def idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape))
    with path.open("ab") as stream:
        stream.write(array.tobytes())


def test_torchvision(tmp_path: Path) -> None:
    for part, n in (("train", 3), ("t10k", 2)):
        idx(tmp_path / "MNIST" / "raw" / f"{part}-images-idx3-ubyte", np.full((n, 28, 28), n, np.uint8))
        idx(tmp_path / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte", np.arange(n, dtype=np.uint8))
    pools = open_data(f"torchvision:MNIST@{tmp_path}")
    assert pools.train is not None
    assert pools.held_out is not None
    assert labels_of(pools.train) == [0, 1, 2]
    assert pools.train.classes[1] == "1 - one"
    np.testing.assert_array_equal(pools.held_out.load(GREY), np.full((2, 1, 28, 28), 2.0))


@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        ("torchvision:CIFAR10", "must have the form torchvision:NAME@ROOT", "CIFAR10"),
        ("torchvision:@x", "must have the form torchvision:NAME@ROOT", "CIFAR10"),
        ("torchvision:CIFAR11@x", "torchvision has no data set 'CIFAR11'", "Did you mean 'CIFAR10"),
        ("torchvision:SVHN@x", "torchvision's SVHN cannot be used here", "train=True/False"),
        (
            "torchvision:CIFAR10@absent",
            "the data of torchvision's CIFAR10 must be in absent",
            "download=True",
        ),
    ],
)
def test_bad_torchvision(source: str, message: str, hint: str) -> None:
    error = refused(source)
    assert message in error.message
    assert hint in error.hint


def test_torchvision_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "torchvision":
            raise ImportError("no torchvision here")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    error = refused("torchvision:CIFAR10@x")
    assert "torchvision must be importable for data torchvision:CIFAR10: no torchvision here" in error.message
    assert error.hint == "pip install torchvision"


# The door


def test_a_missing_path(tmp_path: Path) -> None:
    error = refused(tmp_path / "absent")
    assert error.message == f"data must exist, {str(tmp_path / 'absent')!r} does not"
    assert "torchvision:NAME@ROOT" in error.hint


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "data.zip").write_bytes(b"")
    assert "data must be a folder, an .npz or an .npy file" in refused(tmp_path / "data.zip").message


# Arrays in files of their own


def arrays(folder: Path, *shapes: tuple[int, ...]) -> list[Any]:
    folder.mkdir(parents=True, exist_ok=True)
    made = [np.full(shape, i, np.float32) for i, shape in enumerate(shapes)]
    for i, array in enumerate(made):
        np.save(folder / f"{i}.npy", array)
    return made


def test_files_of_arrays_are_samples(tmp_path: Path) -> None:
    expected = arrays(tmp_path, (2, 3), (2, 3), (2, 3))
    pools = open_data(tmp_path)
    assert pools.single is not None
    assert pools.single.preprocessed
    assert np.array_equal(pools.single.load(), np.stack(expected))


def test_class_folders_may_hold_arrays(tmp_path: Path) -> None:
    arrays(tmp_path / "cat", (3,), (3,))
    arrays(tmp_path / "dog", (3,), (3,))
    pools = open_data(tmp_path)
    assert labels_of(pools.single) == [0, 0, 1, 1]
    assert pools.single is not None
    assert pools.single.load().shape == (4, 3)


def test_columns_of_a_manifest_are_inputs(tmp_path: Path) -> None:
    arrays(tmp_path, (3,), (3,))
    manifest(tmp_path, "picture,state,age,label\na.png,0.npy,31,1\na.png,1.npy,4.5e1,0\n", "a.png")
    samples = open_data(tmp_path).single
    assert samples is not None
    assert isinstance(samples.images, np.ndarray)
    assert samples.images["picture"].shape == (2, 4, 4)
    assert samples.images["state"].tolist() == [[0, 0, 0], [1, 1, 1]]
    assert samples.images["age"].tolist() == [[31], [45]]
    assert labels_of(samples) == [1, 0]


def test_labels_of_a_manifest_are_numbers_or_masks(tmp_path: Path) -> None:
    manifest(tmp_path / "n", "path,label\na.png,1.5\nb.png,2\n", "a.png", "b.png")
    numbers = open_data(tmp_path / "n").single
    assert numbers is not None
    assert numbers.labels is not None
    assert numbers.labels.tolist() == [1.5, 2]
    manifest(tmp_path / "m", "path,label\na.png,masks/a.png\nb.png,masks/b.png\n", "a.png", "b.png", "masks/a.png")
    image(tmp_path / "m" / "masks" / "b.png", 2)
    masks = open_data(tmp_path / "m").single
    assert masks is not None
    assert masks.labels is not None
    assert masks.labels.shape == (2, 4, 4)
    assert masks.labels.dtype == np.int64
    assert np.unique(masks.labels[1]).tolist() == [2]


def test_arrays_and_images_are_not_mixed_in_a_folder(tmp_path: Path) -> None:
    arrays(tmp_path, (3,))
    image(tmp_path / "a.png")
    assert "must hold either images or .npy arrays, got both: a.png and 0.npy" in refused(tmp_path).message


def test_arrays_of_several_shapes_are_refused(tmp_path: Path) -> None:
    arrays(tmp_path, (3,), (4,))
    assert "1.npy: what" in refused(tmp_path).message
    assert "must have one shape, (3,), got (4,)" in refused(tmp_path).message


def test_arrays_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "must be a readable .npy file without pickled objects" in refused(tmp_path).message
