from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bocr_onnx.data import Preprocessing, load_preprocessing, open_data, preset_names
from bocr_onnx.data.augmentation import Augmentation
from bocr_onnx.errors import DataError, UsageError

PLAIN = Preprocessing(
    name="plain",
    channels="RGB",
    resize=None,
    crop=None,
    scale=1.0,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)
GREY = replace(PLAIN, channels="L", mean=(0.0,), std=(1.0,))
VALID = 'channels = "L"\nscale = 1.0\nmean = [0.0]\nstd = [1.0]\n'


def colours(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_values_are_scaled_then_centred_then_divided() -> None:
    image = colours(2, 3)
    p = replace(PLAIN, scale=0.5, mean=(1.0, 2.0, 3.0), std=(1.0, 2.0, 4.0))
    out = p.apply(image)
    expected = ((image * 0.5 - [1, 2, 3]) / [1, 2, 4]).transpose(2, 0, 1)
    assert out.shape == (3, 2, 3)
    assert out.dtype == np.float32
    assert out.flags.c_contiguous
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-6)


def test_layout_and_channel_order() -> None:
    image = colours(2, 3)
    np.testing.assert_array_equal(replace(PLAIN, layout="NHWC").apply(image), image)
    np.testing.assert_array_equal(replace(PLAIN, channels="BGR", layout="NHWC").apply(image), image[:, :, ::-1])


def test_bgr_takes_the_mean_in_its_own_order() -> None:
    p = replace(PLAIN, channels="BGR", mean=(10.0, 20.0, 30.0))
    out = p.apply(np.full((1, 1, 3), (3, 2, 1), dtype=np.uint8))
    np.testing.assert_array_equal(out.ravel(), [1 - 10, 2 - 20, 3 - 30])


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1)])
def test_grey_arrays(shape: tuple[int, ...]) -> None:
    image = np.arange(20, dtype=np.uint8).reshape(shape)
    np.testing.assert_array_equal(GREY.apply(image), image.reshape(1, 4, 5))
    np.testing.assert_array_equal(PLAIN.apply(image)[2], image.reshape(4, 5))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
@pytest.mark.parametrize("p", [PLAIN, GREY], ids=["RGB", "L"])
def test_pil_modes_of_eight_bits(mode: str, p: Preprocessing) -> None:
    assert p.apply(Image.new(mode, (5, 4))).shape == (len(p.mean), 4, 5)


def test_palette_with_transparency_raises_no_warning() -> None:
    picture = Image.new("P", (2, 2))
    picture.putpalette([9, 8, 7])
    picture.info["transparency"] = b"\x00"
    np.testing.assert_array_equal(PLAIN.apply(picture)[:, 0, 0], [9, 8, 7])


@pytest.mark.parametrize("mode", ["I", "I;16", "F"])
def test_deep_images_are_refused(mode: str) -> None:
    with pytest.raises(DataError, match=f"image must have 8 bits a channel, got PIL mode {mode}"):
        GREY.apply(Image.new(mode, (2, 2)))


@pytest.mark.parametrize(
    ("size", "resize", "expected"),
    [
        ((40, 20), 10, (10, 20)),
        ((20, 40), 10, (20, 10)),
        ((25, 10), 5, (5, 12)),
        ((40, 20), (7, 9), (7, 9)),
        ((8, 8), 8, (8, 8)),
    ],
)
def test_resize(size: tuple[int, int], resize: int | tuple[int, int], expected: tuple[int, int]) -> None:
    assert replace(PLAIN, resize=resize).apply(Image.new("RGB", size)).shape[1:] == expected


def test_resize_is_antialiased() -> None:
    board = np.indices((32, 32)).sum(0) % 2 * np.uint8(255)
    out = replace(GREY, resize=8).apply(board.astype(np.uint8))
    assert np.abs(out[0, 1:-1, 1:-1] - 127.5).max() < 2


def test_crop_is_central() -> None:
    image = np.arange(30, dtype=np.uint8).reshape(5, 6)
    np.testing.assert_array_equal(replace(GREY, crop=(3, 2)).apply(image)[0], image[1:4, 2:4])


def test_crop_larger_than_the_image() -> None:
    with pytest.raises(DataError, match="at least 9 x 4 for the crop of preprocessing plain, got 5 x 6") as info:
        replace(GREY, crop=(9, 4)).apply(np.zeros((5, 6), np.uint8))
    assert "preset with resize and crop" in info.value.hint


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4, 3), np.float32), np.zeros((3, 4, 5), np.uint8), np.zeros((0, 4), np.uint8)],
)
def test_bad_arrays(image: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"image must be \(H, W\) or \(H, W, C\) uint8") as info:
        PLAIN.apply(image)
    assert str(image.shape) in info.value.message


@pytest.mark.parametrize("name", ["cifar10", "digits", "imagenet", "raw", "raw-nhwc", "tf"])
def test_presets_load(name: str) -> None:
    p = load_preprocessing(name)
    assert p.name == name
    assert name in preset_names()
    out = p.apply(np.zeros((300, 280, 3), np.uint8))
    expected = {
        "cifar10": (3, 300, 280),
        "digits": (1, 8, 8),
        "raw": (3, 300, 280),
        "raw-nhwc": (300, 280, 3),
    }.get(name, (3, 224, 224))
    assert out.shape == expected
    assert p.keeps_pixels == name.startswith("raw")
    assert not replace(p, scale=1.0, std=tuple(1.0 for _ in p.std), mean=tuple(0.5 for _ in p.mean)).keeps_pixels
    assert not replace(p, scale=1.0, std=tuple(2.0 for _ in p.std), mean=tuple(0.0 for _ in p.mean)).keeps_pixels


def test_imagenet_values() -> None:
    p = load_preprocessing("imagenet")
    out = p.apply(np.full((256, 256, 3), 255, np.uint8))
    np.testing.assert_allclose(out[:, 0, 0], (1 - np.array(p.mean)) / p.std, rtol=1e-6)


def test_tf_values_span_minus_one_to_one() -> None:
    p = load_preprocessing("tf")
    assert [p.apply(np.full((256, 256), v, np.uint8))[0, 0, 0] for v in (0, 255)] == [-1.0, 1.0]


def test_unknown_preset() -> None:
    with pytest.raises(UsageError, match="got 'imagnet'") as info:
        load_preprocessing("imagnet")
    assert info.value.hint.startswith("Did you mean 'imagenet'?")


@pytest.mark.parametrize(
    ("size", "inside"), [((10, 20), (8, 16, 4, 0)), ((20, 10), (16, 8, 0, 4)), ((4, 4), (16, 16, 0, 0))]
)
def test_pad_fits_an_image_into_a_size_and_fills_the_rest(
    size: tuple[int, int], inside: tuple[int, int, int, int]
) -> None:
    p = Preprocessing("box", "RGB", None, None, 1.0, (0.0,) * 3, (1.0,) * 3, pad=(16, 16), fill=7)
    found = p.apply(np.full((*size, 3), 200, np.uint8))
    height, width, top, left = inside
    expected = np.full((3, 16, 16), 7, np.float32)
    expected[:, top : top + height, left : left + width] = 200
    assert np.array_equal(found, expected)


def test_files_are_turned_as_their_exif_orientation_says(tmp_path: Path) -> None:
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, :2] = 255
    exif = Image.Exif()
    exif[274] = 6  # turn right by 90 degrees to view
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    (found,) = open_data(tmp_path).single.load(load_preprocessing("raw-nhwc"))
    assert np.array_equal(found, np.rot90(pixels, -1))


def test_plain_presets_scale_to_the_unit_interval_and_to_minus_one_to_one() -> None:
    image = np.full((2, 2, 3), 255, np.uint8)
    assert load_preprocessing("unit").apply(image).max() == pytest.approx(1)
    assert load_preprocessing("signed").apply(0 * image).min() == -1
    assert load_preprocessing("signed-nhwc").apply(image).shape == (2, 2, 3)


def test_a_file_by_path(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(VALID + "resize = [6, 7]\ncrop = 4\n")
    p = load_preprocessing(file)
    assert (p.name, p.resize, p.crop, p.layout, p.dtype) == ("mine", (6, 7), (4, 4), "NCHW", "float32")
    assert load_preprocessing(str(file)) == p
    file.write_text(VALID + 'name = "other"\nlayout = "NHWC"\n')
    assert load_preprocessing(file).name == "other"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cifar10", Augmentation(flip=True, pad=4)),
        ("imagenet", Augmentation(flip=True, pad=0)),
        ("digits", Augmentation()),
        ("tf", Augmentation()),
    ],
)
def test_presets_say_what_finetuning_may_change(name: str, expected: Augmentation) -> None:
    assert load_preprocessing(name).augment == expected


def test_augment_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(VALID + "[augment]\npad = 2\n")
    assert load_preprocessing(file).augment == Augmentation(pad=2)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.toml must be a readable TOML file: No such file") as info:
        load_preprocessing(tmp_path / "absent.toml")
    assert "cifar10, digits, imagenet" in info.value.hint


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"a\.toml must be a readable TOML file: it is not UTF-8 text"):
        load_preprocessing(tmp_path / "a.toml")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("channels = ", "must be valid TOML", "README"),
        (VALID + "rezise = 8", "key 'rezise' must be a known one", "'resize'"),
        ("scale = 1.0\nmean = [0.0]\nstd = [1.0]", "key 'channels' must be given", "README"),
        (VALID.replace('"L"', '"XYZ"'), "channels must be one of RGB, BGR, L, got 'XYZ'", "README"),
        (VALID.replace('"L"', "[1]"), "channels must be one of", "README"),
        (VALID.replace("scale = 1.0", "scale = 0"), "scale must be a positive number, got 0", "README"),
        (VALID.replace("scale = 1.0", "scale = inf"), "scale must be a positive number", "README"),
        (VALID.replace("scale = 1.0", 'scale = "1/255"'), "scale must be a positive number", "README"),
        (VALID.replace("[0.0]", "[0.0, 1.0]"), "mean must be 1 numbers, one per channel", "README"),
        (VALID.replace("[0.0]", "[nan]"), "mean must be 1 numbers", "README"),
        (VALID.replace("[0.0]", "0.0"), "mean must be 1 numbers", "README"),
        (VALID.replace("std = [1.0]", "std = [0.0]"), "std must be 1 positive numbers", "README"),
        (VALID + "resize = 0", "resize must be a positive whole number", "README"),
        (VALID + "resize = [8]", "resize must be a positive whole number", "README"),
        (VALID + "crop = [8, 8.5]", "crop must be", "README"),
        (VALID + "crop = true", "crop must be", "README"),
        (VALID + "pad = [8]", "pad must be 'input' or [height, width]", "README"),
        (
            VALID + "pad = [8, 8]\nresize = 8",
            "pad must be 'input' or [height, width] of positive whole numbers, without",
            "README",
        ),
        (VALID + "pad = [8, 8]\nfill = 300", "fill must be a pixel from 0 to 255, got 300", "README"),
        (VALID + 'layout = "NCWH"', "layout must be one of NCHW, NHWC, got 'NCWH'", "README"),
        (VALID + 'dtype = "int8"', "dtype must be one of float32, float16, uint8, got 'int8'", "README"),
        (VALID + "name = 3", "name must be a text, got 3", "README"),
        (VALID + "augment = true", "augment must be a table, got True", "[augment]"),
        (VALID + "[augment]\nflop = true", "key 'augment.flop' must be a known one", "'flip'"),
        (VALID + "[augment]\nflip = 1", "augment.flip must be true or false, got 1", ""),
        (VALID + "[augment]\npad = -1", "augment.pad must be a whole number from 0 to 256, got -1", ""),
    ],
)
def test_malformed_files(tmp_path: Path, text: str, message: str, hint: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(DataError) as info:
        load_preprocessing(file)
    assert str(file) in info.value.message
    assert message in info.value.message
    assert hint in info.value.hint
