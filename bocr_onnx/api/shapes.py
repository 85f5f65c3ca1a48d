"""Sizes for the axes that a file leaves open: what people type becomes shapes by input name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bocr_onnx.errors import UsageError

Shapes = dict[str, tuple[int, ...]]


def parse_shapes(texts: Sequence[str]) -> Shapes:
    """Returns shapes by input name from texts such as ``x:1x3x48x320``; ``""`` where a text names no input.

    Raises:
        UsageError: A text is not a shape, or two are of one input.

    Example:
        >>> parse_shapes(["image:0:1x3x48x320"])
        {'image:0': (1, 3, 48, 320)}
    """
    found: Shapes = {}
    for text in texts:
        name, _, sizes = text.rpartition(":")
        if name in found:
            raise UsageError(f"--input-shape must be given once for input {name!r}, got it twice")
        parts = sizes.split("x")
        if not all(part.isascii() and part.isdigit() and len(part) < 19 and int(part) > 0 for part in parts):
            raise UsageError(
                f"--input-shape must be NAME:SIZES with positive whole numbers, got {text!r}",
                hint="For example --input-shape image:1x3x48x320; NAME: may be left out where there is one input.",
            )
        found[name] = tuple(map(int, parts))
    return found


def settle_shapes(shapes: Mapping[str, Sequence[int]] | None) -> Shapes:
    """Returns shapes as a record keeps them, from what a caller hands over.

    Raises:
        UsageError: A size is not a whole number.
    """
    found = {str(name): tuple(sizes) for name, sizes in (shapes or {}).items()}
    for name, sizes in found.items():
        if not all(isinstance(size, int) and not isinstance(size, bool) for size in sizes):
            raise UsageError(f"the shape of input {name!r} must be whole numbers, got {sizes}")
    return found
