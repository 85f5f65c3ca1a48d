"""Writes docs/options.md, the table of every option of every command, from the records.

Usage:
    python tools/options_page.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bocr_onnx.options import COMMANDS, PANELS, Option, options_of

PAGE = Path(__file__).parents[1] / "docs" / "options.md"
HEAD = """# Options

Every option of every command, made from the source by `python tools/options_page.py`. In Python the names are the same,
with underscores: `bocr_onnx.prune("model.onnx", flops=0.5, score_images=500)`. Every command also takes `--json`,
`--quiet` and `--verbose`; from Python `progress` shows long steps.
"""


def row(option: Option) -> str:
    name = option.name.upper() if option.flag.argument else option.spelling
    letter = f", `{option.flag.letter}`" if option.flag.letter else ""
    default = "required" if option.required else "" if option.default in (None, (), {}) else f"`{option.default}`"
    return f"| `{name}`{letter} | {option.flag.help} | {default} | {option.range} |"


def section(kind: Any) -> str:
    options = sorted(
        (o for o in options_of(kind) if o.flag.typed), key=lambda o: (not o.flag.argument, PANELS.index(o.flag.panel))
    )
    name = kind.__name__.removesuffix("Options").lower()
    lines = ["| option | what it does | default | range |", "|---|---|---|---|", *map(row, options)]
    return f"## `bocr-onnx {name}`\n\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text("\n".join([HEAD, *map(section, COMMANDS)]))
