"""Runs the commands of README and docs, page by page, each page in a folder of its own.

Usage:
    python tools/run_docs.py [PAGE.md ...] [--list]

Every block of bash or Python has a line above it that says whether it runs: ``<!-- run -->``, or
``<!-- not run: REASON -->`` (README's three commands, ``<!-- command: NAME -->``, are run by `.ci/run` itself). The
blocks of a page run in order; these stand-ins lie in its folder:

    model.onnx              a classifier of grey digits
    images/                 its images, in a folder for each class
    slim.onnx, slim.run/    what `prune` has made of it
    detector.onnx, photos/  a small detector, trained for a moment, and photos for it

Exits with 1 where a block fails or has no such line.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^(?P<above>[^\n]*)\n```(?P<language>bash|python)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
REASON = re.compile(r"<!-- not run: \S.*-->")
COMMAND = re.compile(r"<!-- command: \w+ -->")
N_IMAGES = 1_200


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code of a page.

    Attributes:
        page: The file.
        line: Line of its first command, from 1.
        language: ``bash`` or ``python``.
        code: What it holds.
        above: The line above it.
    """

    page: Path
    line: int
    language: str
    code: str
    above: str

    @property
    def is_run(self) -> bool:
        """Returns whether it is marked to be run."""
        return self.above == "<!-- run -->"

    @property
    def is_marked(self) -> bool:
        """Returns whether it says that it runs, or why it does not."""
        return self.is_run or bool(REASON.fullmatch(self.above) or COMMAND.fullmatch(self.above))


def pages() -> list[Path]:
    """Returns README and all pages of the docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    """Returns the blocks of bash and Python of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("code")) + 1
        yield Block(page, line, found["language"], found["code"], found["above"].strip())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", type=Path)
    parser.add_argument("--list", action="store_true", help="Show what would run, and run nothing.")
    args = parser.parse_args()
    found = {page: list(blocks(page.resolve())) for page in args.pages or pages()}
    unmarked = [block for own in found.values() for block in own if not block.is_marked]
    for block in unmarked:
        print(f"{block.page.relative_to(ROOT)}:{block.line} must say above it whether it runs", file=sys.stderr)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="docs-") as folder:
        material = Path(folder) / "material"
        for page, own in found.items():
            wanted = [block for block in own if block.is_run]
            if args.list or not wanted:
                print(
                    *(f"{b.page.relative_to(ROOT)}:{b.line} {'runs' if b.is_run else b.above}" for b in own), sep="\n"
                )
                continue
            prepare(material, detector=any("detector.onnx" in block.code for block in wanted))
            failed += not run_page(wanted, material, Path(folder) / page.stem)
    return int(bool(unmarked) or failed > 0)


def prepare(folder: Path, *, detector: bool) -> None:
    """Makes the stand-ins, once."""
    if not folder.exists():
        folder.mkdir()
        demo = files("bocr_onnx.calibration")
        shutil.copy(str(demo / "demo.onnx"), folder / "model.onnx")
        with np.load(str(demo / "digits.npz")) as digits:
            write_images(digits["images"][:N_IMAGES], digits["labels"][:N_IMAGES], folder / "images")
        words = "prune model.onnx --flops 0.5 --data images/ --search sensitivity --history none -o slim.onnx"
        command = [str(Path(sys.executable).parent / "bocr-onnx"), *words.split(), "-q"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    if detector and not (folder / "detector.onnx").exists():
        made = [sys.executable, str(ROOT / "tools/detector.py"), "make", str(folder / "made")]
        subprocess.run([*made, "--images", "300", "--epochs", "4", "--photos", "300"], check=True)
        shutil.move(folder / "made" / "detector.onnx", folder / "detector.onnx")
        shutil.move(folder / "made" / "photos", folder / "photos")


def write_images(images: np.ndarray, labels: np.ndarray, folder: Path) -> None:
    """Writes images as PNGs in a folder for each class."""
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        own = folder / str(label)
        own.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.squeeze(image).astype(np.uint8)).save(own / f"{number}.png")


def run_page(wanted: list[Block], material: Path, folder: Path) -> bool:
    """Returns whether all blocks of a page end well."""
    shutil.copytree(material, folder)
    env = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "BOCR_ONNX_HISTORY": str(folder / "history.sqlite"),
        "BOCR_ONNX_DEVICES": str(folder / "devices.json"),
    }
    for block in wanted:
        start = time.monotonic()
        shell = ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else [sys.executable, "-c"]
        done = subprocess.run([*shell, block.code], cwd=folder, env=env, capture_output=True, text=True, check=False)
        where = f"{block.page.relative_to(ROOT)}:{block.line}"
        print(f"{where} {'ok' if done.returncode == 0 else 'FAILED'}, {time.monotonic() - start:.0f} s", flush=True)
        if done.returncode:
            print(done.stdout[-2_000:], done.stderr[-4_000:], sep="\n", file=sys.stderr)
            return False
    shutil.rmtree(folder)
    return True


if __name__ == "__main__":
    sys.exit(main())
