"""Which random changes training makes to the images."""

from __future__ import annotations

from dataclasses import dataclass

from bocr_onnx.errors import DataError


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Random changes that keep the class of an image; none by default.

    Attributes:
        flip: Whether half of the images are mirrored left to right.
        pad: Zeros added on every side before a crop of the original size is taken at random.

    Raises:
        DataError: `pad` is negative.
    """

    flip: bool = False
    pad: int = 0

    def __post_init__(self) -> None:
        if self.pad < 0:
            raise DataError(f"augment.pad must not be negative, got {self.pad}")
