"""Draws the packages of bocr-onnx and what they import into docs/architecture.md, from the source.

Usage:
    python tools/architecture.py

An arrow that others already imply (a imports b, b imports c, a imports c) is left out.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- drawing -->\n", "<!-- end of drawing -->\n"


def rooms() -> list[str]:
    """Returns the packages of the house, the lowest last, in the order that import-linter holds."""
    text = (ROOT / "pyproject.toml").read_text()
    block = re.search(r"layers = \[(.*?)\]", text, re.S)
    assert block is not None
    return re.findall(r'"bocr_onnx\.(\w+)"', block.group(1))


def imports(room: str) -> set[str]:
    """Returns the packages that a package imports, anywhere in its files."""
    place = ROOT / "bocr_onnx" / room
    files = place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")]
    found: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [f"{node.module}.{a.name}" for a in node.names] if isinstance(node, ast.ImportFrom) else []
            found |= {name.split(".")[1] for name in names if name.startswith("bocr_onnx.")}
    return found - {room}


def drawing() -> str:
    """Returns the drawing as Mermaid."""
    order = rooms()
    direct = {room: imports(room) & set(order) for room in order}
    reached: dict[str, set[str]] = {}
    for room in reversed(order):  # lower rooms first
        reached[room] = direct[room].union(*(reached[other] for other in direct[room]))
    lines = ["```mermaid", "flowchart TD"]
    for room in order:
        implied = set().union(*(reached[other] for other in direct[room]))
        lines += [f"    {room} --> {other}" for other in order if other in direct[room] - implied]
    return "\n".join([*lines, "```"]) + "\n"


def page(text: str) -> str:
    """Returns the page with the drawing as the source makes it."""
    head, rest = text.split(BEGIN)
    return head + BEGIN + drawing() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
