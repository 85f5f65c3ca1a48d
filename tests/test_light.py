"""The light install: what a pipeline runs needs neither torch nor scipy, and what does says how to get them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

import bocr_onnx
from bocr_onnx.cli.main import WHOLE_ONLY

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
DEMO = str(files("bocr_onnx.calibration") / "demo.onnx")
DIGITS = str(files("bocr_onnx.calibration") / "digits.npz")
WITHOUT = f"""
import sys
sys.modules.update(dict.fromkeys({WHOLE_ONLY}))
from bocr_onnx.cli.main import run
run()
"""
"""The command line in a process that cannot import what the light install leaves out."""


def light(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_commands_of_a_pipeline_run_without_torch_and_scipy(tmp_path: Path) -> None:
    slim = tmp_path / "slim.onnx"
    bocr_onnx.prune(DEMO, flops=0.5, search="uniform", output=slim)
    plan = str(tmp_path / "slim.run" / "plan.json")
    for arguments in (
        ("inspect", DEMO),
        ("check", str(slim), "--against", DEMO, "--plan", plan, "--max-latency", "9", "--seconds", "1"),
        ("check", DEMO, "--data", DIGITS, "--min-score", "0.5"),
        ("bench", DEMO, str(slim), "--seconds", "1"),
        ("apply", DEMO, plan, "-o", str(tmp_path / "again.onnx")),
        ("evaluate", DEMO, "--data", DIGITS),
        ("quantize", DEMO, "--data", DIGITS, "--score-images", "100", "-o", str(tmp_path / "int8.onnx")),
        ("mobile", DEMO, "-o", str(tmp_path / "mobile")),
        ("device", "check", "host"),
    ):
        found = light(*arguments)
        assert found.returncode == 0, f"{arguments[0]}: {found.stderr}"


def test_a_command_that_needs_more_says_so(tmp_path: Path) -> None:
    found = light("prune", DEMO, "--flops", "0.5", "--search", "uniform", "-o", str(tmp_path / "s.onnx"))
    assert found.returncode == 2
    assert "pip install bocr-onnx" in found.stderr
    assert "Traceback" not in found.stderr


def test_the_list_is_what_the_package_needs_less_what_it_leaves_out() -> None:
    def names(lines: list[str]) -> dict[str, str]:
        return {re.split(r"[><=\[]", line)[0].replace("-", "_").lower(): line for line in lines}

    whole = names(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])
    listed = names([x for x in (ROOT / "docs/light.txt").read_text().splitlines() if x and x[0] != "#"])
    assert whole.keys() - listed.keys() <= set(WHOLE_ONLY)
    assert not listed.keys() & set(WHOLE_ONLY)
    assert all(whole[name] == line for name, line in listed.items())


@pytest.mark.parametrize("name", ["check", "inspect", "bench"])
def test_a_command_loads_no_more_than_it_needs(name: str) -> None:
    code = f"import sys; from bocr_onnx.api import {name}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not set(loaded) & {*WHOLE_ONLY, "ray"}
