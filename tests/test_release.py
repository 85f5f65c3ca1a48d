"""What a release says of itself: one version, a citation that can be read, a workflow that holds no secret."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

import bocr_onnx

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_version_is_that_of_the_project() -> None:
    assert bocr_onnx.__version__ == version("bocr-onnx") == PROJECT["version"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == PROJECT["version"]
    assert cited["cff-version"] == "1.2.0"
    assert all(key in cited for key in ("message", "title", "authors", "license"))
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text()


def test_nothing_else_in_the_package_names_a_version() -> None:
    found = [
        path
        for path in (ROOT / "bocr_onnx").rglob("*.py")
        if re.search(rf"[\"']{PROJECT['version']}[\"']", path.read_text())
    ]
    assert found == []


def test_publishing_needs_no_secret_and_takes_only_what_was_checked() -> None:
    text = (ROOT / ".github/workflows/publish.yml").read_text()
    jobs: dict[str, Any] = yaml.safe_load(text)["jobs"]
    assert "secrets." not in text
    assert jobs["publish"]["needs"] == "build"
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert any("check_release.sh" in str(step.get("run")) for step in jobs["build"]["steps"])
    used = re.findall(r"uses: \S+@(\S+)", text)
    assert all(re.fullmatch(r"[0-9a-f]{40}", one) for one in used), "actions are pinned to commits"
    (guard,) = (step["run"] for step in jobs["build"]["steps"] if "TAG" in step.get("env", {}))
    for tag, code in ((f"v{PROJECT['version']}", 0), ("v9.9.9", 1)):
        done = subprocess.run(
            ["bash", "-e", "-c", guard],
            cwd=ROOT,
            env={"TAG": tag, "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
            check=False,
        )
        assert done.returncode == code


@pytest.mark.parametrize(
    "name",
    ["py.typed", "calibration/demo.onnx", "calibration/README.md", "devices/web/page/", "devices/android/runner.c"],
)
def test_the_wheel_holds_what_runs_need(name: str, wheel: zipfile.ZipFile) -> None:
    assert any(one.startswith(f"bocr_onnx/{name}") for one in wheel.namelist())


def test_the_wheel_holds_every_module_and_the_licences(wheel: zipfile.ZipFile) -> None:
    held = set(wheel.namelist())
    modules = {
        str(path.relative_to(ROOT)) for path in (ROOT / "bocr_onnx").rglob("*.py") if "calibration" not in path.parts
    }
    assert modules - held == set()
    assert any(name.endswith("licenses/LICENSE") for name in held)
    assert any(name.endswith("licenses/calibration/LICENSE") for name in held)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))
