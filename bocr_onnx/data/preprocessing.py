"""From a decoded image to what a model reads: the record, its arithmetic, and the TOML that holds it."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeGuard, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from bocr_onnx.data.augmentation import Augmentation, read_augmentation
from bocr_onnx.errors import DataError, UsageError, did_you_mean, shortened
from bocr_onnx.graph import read_text

Channels = Literal["RGB", "BGR", "L"]
Layout = Literal["NCHW", "NHWC"]
N_CHANNELS: Mapping[str, int] = {"RGB": 3, "BGR": 3, "L": 1}
_LAYOUTS = ("NCHW", "NHWC")
_DEEP_MODES = ("I", "F")
_REQUIRED = ("channels", "scale", "mean", "std")
_CACHED = 1 << 16
"""Pixels of a plane that are computed at once, which the processor's cache holds."""

INPUT = "input"
"""Size of a letterbox that is the model's."""

MAX_BYTES = 1 << 20
MAX_SIDE = 16_384
"""Pixels along a side of an image that is resized or cropped."""

MAX_PIXELS = 1 << 26
"""Limit for a resized image: a sliver whose shorter side becomes 224 would fill the memory."""

MIN_NUMBER, MAX_NUMBER = 1e-30, 1e30
"""Bounds of scale, mean and std: products and quotients of them stay finite in single precision."""

DType = Literal["float32", "float16", "uint8"]
_DTYPES = get_args(DType)
_KEYS = (*_REQUIRED, "name", "resize", "crop", "pad", "fill", "layout", "dtype", "augment")
_REMEDY = "calibration/README.md shows a whole preprocessing file."


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How an image becomes the input of a model: resize, centre crop or pad, ``(pixel * scale - mean) / std``.

    Attributes:
        name: Name of the preset, or of the file it was read from.
        channels: Order of the channels the model wants; ``"L"`` is one grey channel.
        resize: Length of the shorter side in pixels, the aspect kept; or (height, width); or None.
            Bilinear with antialiasing, as PIL does it.
        crop: (height, width) in pixels of the centre that is kept, after `resize`; or None.
        pad: (height, width) in pixels that the image is fitted into, its aspect kept (letterbox), instead of `resize`
            and `crop`; ``"input"`` for the size and the layout of the model's input, see `fitted`; or None.
        fill: Pixel of the border that `pad` leaves, 0..255.
        scale: Multiplied onto the pixel, which is 0..255 in a file.
        mean: Per channel in the order of `channels`, subtracted after `scale`.
        std: Per channel in the order of `channels`, positive, divided by after `mean`.
        layout: ``"NCHW"`` or ``"NHWC"``.
        dtype: Dtype of the model's input. Results are float32; they are cast where they are fed.
        augment: Random changes under finetuning; `apply` makes none.

    Raises:
        DataError: A field has a value outside of what is said above.
    """

    name: str
    channels: Channels
    resize: int | tuple[int, int] | None
    crop: tuple[int, int] | None
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layout: Layout = "NCHW"
    dtype: DType = "float32"
    pad: tuple[int, int] | Literal["input"] | None = None
    fill: int = 114
    augment: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        for key, fault in _faults(self):
            raise DataError(f"preprocessing {self.name}: {key} must {fault}", hint=_REMEDY)

    @property
    def keeps_pixels(self) -> bool:
        """Returns whether the values stay the pixels, shifted by whole numbers at most, as integer inputs want them."""
        whole = all(float(value).is_integer() for value in self.mean)
        return self.scale == 1 and whole and all(value == 1 for value in self.std)

    def fitted(self, height: int, width: int, layout: Layout) -> Preprocessing:
        """Returns it with the size and the layout of a model's input, where it leaves these to the model."""
        return replace(self, pad=(height, width), layout=layout) if self.pad == INPUT else self

    def apply(self, image: npt.NDArray[np.uint8] | Image.Image) -> npt.NDArray[np.float32]:
        """Returns what the model reads for one image.

        Args:
            image: `(H, W)` or `(H, W, C)` uint8 with C of 1 (grey), 3 (RGB) or 4 (RGBA), or a PIL image of
                8 bits a channel. Transparency is dropped. Files are turned as their EXIF orientation says.

        Returns:
            `(C, H, W)` float32 for ``"NCHW"``, `(H, W, C)` for ``"NHWC"``.

        Raises:
            DataError: The image has another type or shape, more than 8 bits a channel, or is smaller than
                the crop.
        """
        return np.asarray(self.values(self.pixels(image)[None])[0])

    def pixels(self, image: npt.NDArray[np.uint8] | Image.Image) -> npt.NDArray[np.uint8]:
        """Returns the pixels that the model's input is computed from, `(H, W, C)`; `apply` says what an image is."""
        picture = self._pad(self._crop(self._resize(self._convert(_picture(image)))))
        return np.asarray(picture, dtype=np.uint8).reshape(picture.height, picture.width, -1)

    def values(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Returns inputs, float32, first axis the images, of pixels `(N, H, W, C)`."""
        planes = pixels.transpose(0, 3, 1, 2)
        if self.channels == "BGR":
            planes = planes[:, ::-1]
        values = np.empty(planes.shape if self.layout == "NCHW" else pixels.shape, np.float32)
        made = values if self.layout == "NCHW" else values.transpose(0, 3, 1, 2)
        step = max(1, _CACHED // max(1, math.prod(pixels.shape[1:3])))
        for start in range(0, len(pixels), step):
            for channel in range(planes.shape[1]):
                plane = planes[start : start + step, channel].astype(np.float32)
                plane *= np.float32(self.scale)
                plane -= np.float32(self.mean[channel])
                plane /= np.float32(self.std[channel])
                made[start : start + step, channel] = plane
        return values

    def place(
        self, boxes: npt.NDArray[np.float32], width: int, height: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Returns where boxes of an image lie in the model's input, and whether their centres do.

        Args:
            boxes: Left, top, right and bottom in pixels of the image, `(..., 4)`; parts that are cut off are left out.
            width: Width of the image in pixels.
            height: Its height.
        """
        size, corner = (width, height), (0, 0)
        if self.resize is not None:
            size = _wanted_size(size, self.resize)
        end = size
        if self.crop is not None:
            end = self.crop[1], self.crop[0]
            corner = -round((size[0] - end[0]) / 2), -round((size[1] - end[1]) / 2)
        if self.pad is not None:
            end = self._canvas()[::-1]
            size = self._inside(size)
            corner = (end[0] - size[0]) // 2, (end[1] - size[1]) // 2
        scale = np.asarray((size[0] / width, size[1] / height) * 2, np.float32)
        placed = boxes * scale + np.asarray(corner * 2, np.float32)
        centres = (placed[..., :2] + placed[..., 2:]) / 2
        inside = ((centres >= 0) & (centres < np.asarray(end))).all(axis=-1)
        return np.clip(placed, 0, np.asarray(end * 2, np.float32)), np.asarray(inside, np.bool_)

    def _inside(self, size: tuple[int, int]) -> tuple[int, int]:
        """Returns width and height of an image that is fitted into `pad`."""
        height, width = self._canvas()
        scale = min(height / size[1], width / size[0])
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))

    def _canvas(self) -> tuple[int, int]:
        """Returns height and width of the letterbox."""
        if not isinstance(self.pad, tuple):
            raise DataError(
                f"preprocessing {self.name} must be fitted to a model whose input has a size",
                hint="Name the size: `input_shape=1x3x640x640`.",
            )
        return self.pad

    def _convert(self, picture: Image.Image) -> Image.Image:
        if picture.mode.partition(";")[0] in _DEEP_MODES:
            raise DataError(
                f"image must have 8 bits a channel, got PIL mode {picture.mode}",
                hint="Convert the images to 8 bits, e.g. to PNG in mode L or RGB.",
            )
        if picture.mode == "P":  # PIL warns on the direct way when the palette holds transparency
            picture = picture.convert("RGBA")
        return picture.convert("L" if self.channels == "L" else "RGB")

    def _resize(self, picture: Image.Image) -> Image.Image:
        if self.resize is None:
            return picture
        size = _wanted_size(picture.size, self.resize)
        if size[0] * size[1] > MAX_PIXELS:
            raise DataError(
                f"image must have at most {MAX_PIXELS} pixels once preprocessing {self.name} has resized it, "
                f"got {picture.height} x {picture.width} pixels that become {size[1]} x {size[0]}",
                hint="Give resize as [height, width], or take the image out of the data.",
            )
        return picture if size == picture.size else picture.resize(size, Image.Resampling.BILINEAR)

    def _pad(self, picture: Image.Image) -> Image.Image:
        """Returns the picture in the middle of a canvas, as large as it fits."""
        if self.pad is None:
            return picture
        height, width = self._canvas()
        size = self._inside(picture.size)
        inside = picture if size == picture.size else picture.resize(size, Image.Resampling.BILINEAR)
        canvas = Image.new(picture.mode, (width, height), self.fill if picture.mode == "L" else (self.fill,) * 3)
        canvas.paste(inside, ((width - size[0]) // 2, (height - size[1]) // 2))
        return canvas

    def _crop(self, picture: Image.Image) -> Image.Image:
        if self.crop is None:
            return picture
        height, width = self.crop
        if picture.height < height or picture.width < width:
            raise DataError(
                f"image must be at least {height} x {width} for the crop of preprocessing {self.name}, "
                f"got {picture.height} x {picture.width}",
                hint="Give a preset with resize and crop.",
            )
        top, left = round((picture.height - height) / 2), round((picture.width - width) / 2)
        return picture.crop((left, top, left + width, top + height))


def preset_names() -> tuple[str, ...]:
    """Returns the names of the presets that come with the package, sorted."""
    folder = resources.files("bocr_onnx.calibration") / "presets"
    return tuple(sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")))


def load_preprocessing(preset_or_path: str | Path) -> Preprocessing:
    """Returns a preprocessing read from a preset or from a TOML file.

    Args:
        preset_or_path: Name of a preset (see `preset_names`), or the path of a file. What ends in ``.toml``
            or holds a path separator is a path.

    Raises:
        UsageError: No preset has this name.
        DataError: The file cannot be read, is not TOML, or has unknown, missing or impossible values.
    """
    path = Path(preset_or_path)
    if isinstance(preset_or_path, Path) or path.suffix == ".toml" or len(path.parts) != 1:
        return _parse(_read(path), name=path.stem, source=str(path))
    if preset_or_path not in preset_names():
        raise UsageError(
            f"preset must be the name of one or the path of a .toml file, got {preset_or_path!r}",
            hint=did_you_mean(preset_or_path, preset_names()),
        )
    file = resources.files("bocr_onnx.calibration") / "presets" / f"{preset_or_path}.toml"
    return _parse(file.read_text(encoding="utf-8"), name=preset_or_path, source=f"preset {preset_or_path}")


def _read(path: Path) -> str:
    try:
        return read_text(path, MAX_BYTES)
    except (OSError, ValueError) as error:  # a name may hold a zero byte
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DataError(
            f"preprocessing file {path} must be a readable TOML file: {reason}",
            hint=f"Give the path of a .toml file or a preset: {', '.join(preset_names())}.",
        ) from error


def _parse(text: str, *, name: str, source: str) -> Preprocessing:
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # not TOML, an integer of thousands of digits, or deep brackets
        raise DataError(f"{source} must be valid TOML: {error}", hint=_REMEDY) from error
    for key in table:
        if key not in _KEYS:
            raise DataError(f"{source}: key {key!r} must be a known one", hint=did_you_mean(key, _KEYS))
    for key in _REQUIRED:
        if key not in table:
            raise DataError(f"{source}: key {key!r} must be given, it is missing", hint=_REMEDY)
    try:
        return _record(table, name)
    except DataError as error:
        raise DataError(f"{source}: {error.message}", hint=error.hint) from error


def _record(table: Mapping[str, Any], name: str) -> Preprocessing:
    """Returns the record; lists become tuples, and one number for `crop` is a square."""
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    crop = fields.get("crop")
    return Preprocessing(
        name=fields.get("name", name),
        channels=fields["channels"],
        resize=fields.get("resize"),
        crop=(crop, crop) if isinstance(crop, int) else crop,
        scale=fields["scale"],
        mean=fields["mean"],
        std=fields["std"],
        pad=fields.get("pad"),
        fill=fields.get("fill", 114),
        layout=fields.get("layout", "NCHW"),
        dtype=fields.get("dtype", "float32"),
        augment=read_augmentation(fields.get("augment", {})),
    )


def _faults(p: Preprocessing) -> list[tuple[str, str]]:
    """Returns (key, condition it fails) of every bad field."""
    n = N_CHANNELS.get(p.channels, 0) if isinstance(p.channels, str) else 0
    checks = [
        ("name", "be a text", p.name, isinstance(p.name, str)),
        ("channels", f"be one of {', '.join(N_CHANNELS)}", p.channels, n > 0),
        (
            "resize",
            "be a positive whole number or [height, width]",
            p.resize,
            p.resize is None or _is_side(p.resize) or _is_size(p.resize),
        ),
        ("crop", "be [height, width] of positive whole numbers", p.crop, p.crop is None or _is_size(p.crop)),
        (
            "pad",
            "be 'input' or [height, width] of positive whole numbers, without resize and crop",
            p.pad,
            p.pad is None or ((p.pad == INPUT or _is_size(p.pad)) and p.resize is None and p.crop is None),
        ),
        ("fill", "be a pixel from 0 to 255", p.fill, type(p.fill) is int and 0 <= p.fill <= 255),
        ("scale", "be a positive number", p.scale, _is_number(p.scale) and p.scale >= MIN_NUMBER),
        ("mean", f"be {n} numbers, one per channel", p.mean, _is_row(p.mean, n)),
        (
            "std",
            f"be {n} positive numbers, one per channel",
            p.std,
            _is_row(p.std, n) and all(value >= MIN_NUMBER for value in p.std),
        ),
        ("layout", f"be one of {', '.join(_LAYOUTS)}", p.layout, p.layout in _LAYOUTS),
        ("dtype", f"be one of {', '.join(_DTYPES)}", p.dtype, p.dtype in _DTYPES),
    ]
    return [(key, f"{condition}, got {shortened(value)}") for key, condition, value, holds in checks if not holds]


def _is_number(value: object) -> TypeGuard[float]:
    """Returns whether a value is a number that single precision holds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER


def _is_side(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_SIDE


def _is_size(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(_is_side(side) for side in value)


def _is_row(value: object, n: int) -> bool:
    return isinstance(value, tuple) and len(value) == n and all(_is_number(item) for item in value)


def _picture(image: npt.NDArray[np.uint8] | Image.Image) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    shaped = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3, 4))
    if image.dtype != np.uint8 or not shaped or 0 in image.shape:
        raise DataError(
            f"image must be (H, W) or (H, W, C) uint8 with C of 1, 3 or 4, got {image.shape} {image.dtype}",
            hint="Store decoded images as uint8 with the channels last.",
        )
    return Image.fromarray(image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image)


def _wanted_size(size: tuple[int, int], resize: int | tuple[int, int]) -> tuple[int, int]:
    """Returns (width, height) after the resize of a (width, height)."""
    if isinstance(resize, tuple):
        return resize[1], resize[0]
    width, height = size
    if width <= height:
        return resize, int(resize * height / width)
    return int(resize * width / height), resize
