"""Hints that fit the command: what an option would do does not help if the command lacks it."""

from __future__ import annotations

import re
from collections.abc import Collection

FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
SENTENCE = re.compile(r"(?<=[.;])\s+")


def fitting(hint: str, flags: Collection[str]) -> str:
    """Returns a hint without the sentences that name options the command does not have.

    A whole command line (`bocr-onnx ...`) stays, whatever its options.

    Args:
        hint: Hint of an error.
        flags: Options of the command.

    Example:
        >>> fitting("Is the file complete? Try --preset NAME. --freeze PATTERN leaves groups alone.", ["--preset"])
        'Is the file complete? Try --preset NAME.'
    """
    sentences = SENTENCE.split(hint)
    kept = [s for s in sentences if "bocr-onnx " in s or all(flag in flags for flag in FLAG.findall(s))]
    return " ".join(kept).rstrip(";")
