"""Errors and notes as a command line says them: options that they name become flags."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping

NAMED = re.compile(r"`([a-z_]+)(?:=([^`]*))?`")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
SENTENCE = re.compile(r"(?<=[.;])\s+")


def spelled(text: str) -> str:
    """Returns a text with the options that it names in backticks as flags.

    Example:
        >>> spelled("`score_images` must be at least 1, got 0; try `preset=cifar10`")
        '--score-images must be at least 1, got 0; try --preset cifar10'
    """

    def flag(found: re.Match[str]) -> str:
        name, value = found.groups()
        return f"{_flags().get(name, name)}{'' if value is None else f' {value}'}"

    return NAMED.sub(flag, text)


@functools.cache
def _flags() -> Mapping[str, str]:
    """Returns the flag of every option of every command, by name."""
    from bocr_onnx.options import COMMANDS, RENAMED, options_of

    flags = {o.name: o.spelling for kind in COMMANDS for o in options_of(kind)}
    return flags | {old: flags[new] for old, new in RENAMED.items()} | {"quiet": "--quiet"}


def fitting(hint: str, flags: Collection[str]) -> str:
    """Returns a hint without the sentences that name options the command does not have.

    A whole command line (`bocr-onnx ...`) stays, whatever its options.

    Args:
        hint: Hint of an error, its options spelled as flags.
        flags: Options of the command.

    Example:
        >>> fitting("Is the file complete? Try --preset NAME. --freeze PATTERN leaves groups alone.", ["--preset"])
        'Is the file complete? Try --preset NAME.'
    """
    sentences = SENTENCE.split(hint)
    kept = [s for s in sentences if "bocr-onnx " in s or all(flag in flags for flag in FLAG.findall(s))]
    return " ".join(kept).rstrip(";")
