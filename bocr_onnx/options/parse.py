"""Values as people write them become values as records keep them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bocr_onnx.errors import UsageError, did_you_mean

MAX_GRID = 65_536
TASK_NAMES = ("auto", "generic", "classification", "segmentation", "detection", "embedding", "regression")
OWN_TASK = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""A class of the user's, ``module:Name``."""

Shapes = dict[str, tuple[int, ...]]


def parse_shares(value: Any) -> tuple[float, ...] | None:
    """Returns the shares of a budget from one number, several, or a text such as ``0.7,0.5,0.3``; None for none.

    Raises:
        ValueError: One of them is not a number.

    Examples:
        >>> parse_shares(0.5), parse_shares("0.7,0.5"), parse_shares(None)
        ((0.5,), (0.7, 0.5), None)
    """
    if value is None:
        return None
    parts = value.split(",") if isinstance(value, str) else value
    try:
        return tuple(float(part) for part in parts) if isinstance(parts, Sequence) else (float(parts),)
    except (TypeError, ValueError) as error:
        raise ValueError(f"must be a share or several with commas between, got {value!r}") from error


def parse_latencies(value: Any) -> tuple[float | str, ...] | None:
    """Returns latencies to keep: shares of the original's as numbers, milliseconds as texts such as ``8ms``.

    Raises:
        ValueError: One of them is neither, or both kinds are mixed.

    Examples:
        >>> parse_latencies("0.7,0.5"), parse_latencies("8 ms"), parse_latencies(0.6)
        ((0.7, 0.5), ('8ms',), (0.6,))
    """
    if value is None:
        return None
    parts = value.split(",") if isinstance(value, str) else value
    parts = list(parts) if isinstance(parts, Sequence) else [parts]
    try:
        found = [_latency(part) for part in parts]
    except (TypeError, ValueError) as error:
        raise ValueError(f"must be a share such as 0.6, or milliseconds such as 8ms, got {value!r}") from error
    if len({type(one) for one in found}) > 1:
        raise ValueError(f"must be shares or milliseconds, not both, got {value!r}")
    return tuple(found)


def _latency(part: Any) -> float | str:
    if not isinstance(part, str) or not part.strip().endswith("ms"):
        return float(part)
    milliseconds = float(part.strip().removesuffix("ms"))
    if not 0 < milliseconds < math.inf:
        raise ValueError(part)
    return f"{milliseconds:g}ms"


def parse_one_latency(value: Any) -> float | str | None:
    """Returns one latency: a share as a number, milliseconds as text.

    Raises:
        ValueError: It is neither, or several.

    Examples:
        >>> parse_one_latency("0.6"), parse_one_latency("8 ms")
        (0.6, '8ms')
    """
    found = parse_latencies(value)
    if found is None:
        return None
    if len(found) != 1 or (not isinstance(found[0], str) and not 0 < found[0] < math.inf):
        raise ValueError(f"must be one share above 0, or milliseconds such as 8ms, got {value!r}")
    return found[0]


UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9,
         "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30}  # fmt: skip
LIMIT = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*)\s*")


def parse_limit(value: Any) -> float | None:
    """Returns a limit: up to 1 a share of the original's, above it a number.

    Raises:
        ValueError: It is not a positive number with a known unit.

    Examples:
        >>> parse_limit("0.5"), parse_limit("200M"), parse_limit("5 MiB"), parse_limit(None)
        (0.5, 200000000.0, 5242880.0, None)
    """
    if value is None:
        return None
    found = LIMIT.fullmatch(value if isinstance(value, str) else repr(value))
    if isinstance(value, bool) or found is None or found[2].lower() not in UNITS or not float(found[1]) > 0:
        raise ValueError(f"must be a share such as 0.5, or a number such as 200M or 5MB, got {value!r}")
    return float(found[1]) * UNITS[found[2].lower()]


def parse_grid(value: Any) -> Any:
    """Returns a channel grid, a whole number or ``auto``.

    Raises:
        ValueError: It is neither.
    """
    if value in ("auto", 0):
        return "auto"
    try:
        grid = int(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"must be auto or a whole number, got {value!r}") from error
    if not 1 <= grid <= MAX_GRID:
        least = grid < 1
        raise ValueError(f"must be auto or {'at least 1' if least else f'at most {MAX_GRID}'}, got {str(value)[:60]}")
    return grid


def parse_shapes(value: Any) -> Shapes:
    """Returns shapes by input name from a mapping, or from texts such as ``x:1x3x48x320``.

    Returns:
        Shapes by name; the name is empty where a text has none.

    Raises:
        UsageError: A text is not a shape, two are of one input, or a size is not a whole number.

    Example:
        >>> parse_shapes(["image:0:1x3x48x320"])
        {'image:0': (1, 3, 48, 320)}
    """
    if isinstance(value, Mapping):
        return _settled(value)
    found: Shapes = {}
    for text in value or ():
        name, _, sizes = text.rpartition(":")
        if name in found:
            raise UsageError(f"`input_shapes` must be given once for input {name!r}, got it twice")
        parts = sizes.split("x")
        if not all(part.isascii() and part.isdigit() and len(part) < 19 and int(part) > 0 for part in parts):
            raise UsageError(
                f"`input_shapes` must be NAME:SIZES with positive whole numbers, got {text!r}",
                hint="For example image:1x3x48x320; NAME: may be left out where there is one input.",
            )
        found[name] = tuple(map(int, parts))
    return found


def _settled(shapes: Mapping[str, Sequence[int]]) -> Shapes:
    found = {str(name): tuple(sizes) for name, sizes in shapes.items()}
    for name, sizes in found.items():
        if not all(isinstance(size, int) and not isinstance(size, bool) for size in sizes):
            raise UsageError(f"the shape of input {name!r} must be whole numbers, got {sizes}")
    return found


def parse_weights(value: Any) -> dict[str, float]:
    """Returns weights from a mapping, from texts ``NAME:WEIGHT``, or from None.

    Raises:
        UsageError: A text has another form, or a weight is not a finite number from 0 up.

    Example:
        >>> parse_weights(["boxes:0:2.5"])
        {'boxes:0': 2.5}
    """
    pairs = value.items() if isinstance(value, Mapping) else [text.rpartition(":")[::2] for text in value or ()]
    found: dict[str, float] = {}
    for name, text in pairs:
        try:
            weight = float(text)
        except (TypeError, ValueError):
            weight = math.nan
        if not name or not 0 <= weight < math.inf:
            raise UsageError(
                f"`output_weights` must be NAME:WEIGHT with a number from 0 up, got {name}:{text}",
                hint="For example boxes:2; outputs that are not named count once.",
            )
        found[str(name)] = weight
    return found


def parse_task(value: str) -> str:
    """Returns the name of a task.

    Raises:
        UsageError: It is none, nor a class as ``module:Name``.
    """
    if value not in TASK_NAMES and not OWN_TASK.fullmatch(value):
        raise UsageError(
            f"`task` must be {', '.join(TASK_NAMES)} or module:Name, got {value!r}",
            hint=did_you_mean(value, TASK_NAMES),
        )
    return value


def parse_models(value: Any) -> tuple[Any, ...]:
    """Returns the names of files, one or several.

    Raises:
        ValueError: There is none.
    """
    found = (value,) if isinstance(value, (str, Path)) else tuple(value or ())
    if not found:
        raise ValueError("must name a file, got none")
    return found


def parse_cores(value: Any) -> tuple[int, ...]:
    """Returns numbers of cores from several, or from a text such as ``0,2``.

    Raises:
        ValueError: One of them is not a whole number from 0 up.

    Example:
        >>> parse_cores("0,2"), parse_cores([1])
        ((0, 2), (1,))
    """
    texts = [value] if isinstance(value, (str, int)) else list(value or ())
    parts = [part for text in texts for part in str(text).split(",")]
    if not all(part.strip().isascii() and part.strip().isdigit() and len(part) < 6 for part in parts):
        raise ValueError(f"must be numbers of cores with commas between, got {','.join(parts)!r}")
    return tuple(int(part) for part in parts)


def parse_patterns(value: Any) -> tuple[str, ...]:
    """Returns patterns from one text, several, or None.

    Raises:
        ValueError: One of them is not a text.
    """
    patterns = (value,) if isinstance(value, str) else tuple(value or ())
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise ValueError(f"must be patterns, got {list(patterns)}")
    return patterns


def parse_model(value: Any) -> Any:
    """Returns a model as the name of its file, or as the `onnx.ModelProto` it is.

    Raises:
        ValueError: It is something else, or the name is empty.
    """
    if not isinstance(value, (str, Path)) and not hasattr(value, "SerializeToString"):
        raise ValueError(f"must be a path or an onnx.ModelProto, got a {type(value).__name__}")
    return parse_place(value)


def parse_data(value: Any) -> Any:
    """Returns images as the name of their source, or as the arrays they are; None stays.

    Raises:
        ValueError: They are something else, or the name is empty.
    """
    arrays = value if isinstance(value, tuple) and len(value) == 2 else (value,)
    if isinstance(arrays[0], Mapping):
        arrays = (*arrays[0].values(), *arrays[1:])
    if value is not None and not isinstance(value, (str, Path)) and not all(hasattr(a, "dtype") for a in arrays):
        raise ValueError(
            f"must be a path, an array, or arrays by name of input, alone or with labels, got a {type(value).__name__}"
        )
    return parse_place(value)


def parse_place(value: Any) -> Any:
    """Returns the name of a file, a folder or a source as a text; anything else as it is.

    Raises:
        ValueError: The name is empty.
    """
    if isinstance(value, str) and not value:
        raise ValueError("must name a file or a folder, got an empty name")
    return str(value) if isinstance(value, Path) else value
