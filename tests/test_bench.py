"""The search benchmark resumes: what its file holds is not repeated, and tables tell how many seeds there are."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
DEMO, DIGITS = (str(files("bocr_onnx.calibration") / name) for name in ("demo.onnx", "digits.npz"))


def run(tool: str, *arguments: str) -> str:
    command = [sys.executable, str(ROOT / "tools" / tool), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the file of two searches of the published setting and one of our own."""
    file = tmp_path_factory.mktemp("bench") / "rows.jsonl"
    few = (
        "--data",
        DIGITS,
        "--flops",
        "0.6",
        "--trials",
        "3",
        "--images",
        "100",
        "--recovery-images",
        "100",
        "-o",
        str(file),
    )
    run("bench_search.py", DEMO, *few, "--seeds", "0,1", "--published", "--strategies", "random")
    run("bench_search.py", DEMO, *few, "--seeds", "0", "--trials-only", "--strategies", "random")
    before = file.read_text()
    assert run("bench_search.py", DEMO, *few, "--seeds", "0,1", "--published", "--strategies", "random") == ""
    assert run("bench_search.py", DEMO, *few, "--seeds", "7", "--strategies", "random", "--minutes", "0") == ""
    assert file.read_text() == before
    return file


def test_a_row_tells_what_was_searched_and_found(rows: Path) -> None:
    published, again, own = map(json.loads, rows.read_text().splitlines())
    assert (published["seed"], again["seed"], own["seed"]) == (0, 1, 0)
    assert published["published"]
    assert published["scores"] == published["objectives"], "top-1 is what is maximized"
    assert published["recovery"] == "closed form"
    assert 0 < published["kept_macs"] <= 0.6
    assert "unseen" not in own
    assert own["objectives"] != own["scores"]


def test_the_page_says_how_many_seeds_stand_behind_a_figure(rows: Path, tmp_path: Path) -> None:
    run("plot_search.py", str(rows), "-o", str(tmp_path / "page.md"), "--figures", str(tmp_path))
    page = (tmp_path / "page.md").read_text()
    assert "| demo.onnx, 0.6 | `random` | 2 |" in page
    assert page.count("Not measured yet.") == 2
    assert (tmp_path / "search_published.png").exists()
