"""Which random changes finetuning makes to the images."""

from __future__ import annotations

from dataclasses import dataclass

from bocr_onnx.errors import DataError, did_you_mean, shortened

MAX_PAD = 256


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Random changes that keep the class of an image; none by default.

    Attributes:
        flip: Whether half of the images are mirrored left to right.
        pad: Zeros added on every side, in pixels, before a crop of the original size is taken at random.

    Raises:
        DataError: `flip` is not true or false, or `pad` is not a whole number from 0 to `MAX_PAD`.
    """

    flip: bool = False
    pad: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.flip, bool):
            raise DataError(f"augment.flip must be true or false, got {shortened(self.flip)}")
        if not isinstance(self.pad, int) or isinstance(self.pad, bool) or not 0 <= self.pad <= MAX_PAD:
            raise DataError(f"augment.pad must be a whole number from 0 to {MAX_PAD}, got {shortened(self.pad)}")


def read_augmentation(table: object) -> Augmentation:
    """Returns the record of an ``[augment]`` table.

    Raises:
        DataError: It is not a table, or has unknown keys or impossible values.
    """
    if not isinstance(table, dict):
        raise DataError(
            f"augment must be a table, got {shortened(table)}", hint="Write [augment] on a line of its own."
        )
    for key in table:
        if key not in ("flip", "pad"):
            raise DataError(f"key 'augment.{key}' must be a known one", hint=did_you_mean(key, ("flip", "pad")))
    return Augmentation(**table)
