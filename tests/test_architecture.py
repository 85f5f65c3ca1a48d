"""The drawing of the house is the one that the imports make, and CONTRIBUTING's diffs do what they say."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
DIFFS = re.findall(
    r"^## ([^\n]+)\n.*?^```diff\n(.*?)^```\n.*?^```bash\n(.*?)^```",
    (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
    re.M | re.S,
)


def test_the_drawing_is_up_to_date() -> None:
    script = runpy.run_path(str(ROOT / "tools" / "architecture.py"))
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert script["page"](text) == text


def test_every_kind_of_addition_has_its_diff() -> None:
    assert len(DIFFS) == 5
    for title, diff, _ in DIFFS:
        assert diff.count("\n") <= 45, title


@pytest.mark.parametrize(("title", "diff", "command"), DIFFS, ids=[d[0] for d in DIFFS])
def test_a_diff_applies_and_its_tests_pass(title: str, diff: str, command: str, tmp_path: Path) -> None:
    for name in ("bocr_onnx", "tests", "docs", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "conftest.py", "README.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "calibration").symlink_to(ROOT / "calibration")
    link = tmp_path / "bocr_onnx" / "calibration"
    if not link.exists():
        link.symlink_to(ROOT / "calibration")
    subprocess.run(["git", "init", "-q", "."], cwd=tmp_path, check=True)
    subprocess.run(["git", "apply", "-"], input=diff, text=True, cwd=tmp_path, check=True)
    environment = os.environ | {
        "PYTHONPATH": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash", "-ec", command], cwd=tmp_path, env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, f"{title}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
