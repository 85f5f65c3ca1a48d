"""The search benchmark resumes: what its file holds is not repeated, and tables tell how many seeds there are."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import onnx
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


def test_a_search_of_another_model_is_known(tmp_path: Path) -> None:
    other, file = tmp_path / "other.onnx", tmp_path / "rows.jsonl"
    model = onnx.load(DEMO)
    model.producer_version = "another"
    onnx.save(model, other)
    few = ("--data", DIGITS, "--flops", "0.1", "--trials", "10", "--images", "100", "--recovery-images", "100")
    agents = ("--published", "--trials-only", "--seeds", "0", "-o", str(file))
    run("bench_search.py", DEMO, *few, *agents, "--strategies", "amc,amc:warm_up=short")
    run("bench_search.py", DEMO, *few, *agents, "--strategies", "amc:transfer=plain", "--source", str(other))
    scratch, short, transferred = map(json.loads, file.read_text().splitlines())
    assert (scratch["history"], short["history"], transferred["history"]) == (None, None, "other")
    assert (transferred["source_trials"], "source_trials" in scratch) == (10, False)
    assert transferred["scores"][:2] == short["scores"][:2], "both begin with the same random policies"
    assert transferred["scores"][2:] != short["scores"][2:], "what the agent does after them has learned from the other"
    run("plot_search.py", str(file), "-o", str(tmp_path / "page.md"), "--figures", str(tmp_path))
    page = (tmp_path / "page.md").read_text()
    assert "| demo.onnx, 0.1 | `amc:transfer=plain` | 1 |" in page
    assert page.count("`amc:warm_up=short`") == 1, "a control of history alone"


def test_another_budget_is_known(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    few = (
        "--data",
        DIGITS,
        "--flops",
        "0.3",
        "--images",
        "60",
        "--recovery-images",
        "60",
        "--seeds",
        "0",
        "-o",
        str(file),
    )
    run("bench_search.py", DEMO, *few, "--trials", "4", "--strategies", "bocr")
    run("bench_search.py", DEMO, *few, "--trials", "4", "--strategies", "bocr", "--before", "0.5")
    fresh, knowing = map(json.loads, file.read_text().splitlines())
    assert (fresh["before"], knowing["before"], len(knowing["objectives"])) == (None, 0.5, 4)
    assert knowing["objectives"] != fresh["objectives"], "what is known is tried early"
    run("plot_search.py", str(file), "-o", str(tmp_path / "page.md"), "--figures", str(tmp_path))
    assert "| demo.onnx | itself at 0.5, 0.3 | 1 |" in (tmp_path / "page.md").read_text()


def test_a_row_tells_what_was_searched_and_found(rows: Path) -> None:
    published, again, own = map(json.loads, rows.read_text().splitlines())
    assert (published["seed"], again["seed"], own["seed"]) == (0, 1, 0)
    assert published["published"]
    assert published["scores"] == published["objectives"], "top-1 is what is maximized"
    assert published["recovery"] == "closed form"
    assert 0 < published["kept_macs"] <= 0.6
    assert "unseen" not in own
    assert own["objectives"] != own["scores"]


def test_the_page_says_how_many_seeds_a_figure_has(rows: Path, tmp_path: Path) -> None:
    run("plot_search.py", str(rows), "-o", str(tmp_path / "page.md"), "--figures", str(tmp_path))
    page = (tmp_path / "page.md").read_text()
    assert "| demo.onnx, 0.6 | `random` | 2 |" in page
    assert page.count("Not measured yet.") == 2
    assert (tmp_path / "search_published.png").exists()
