"""The action and the pipelines of the docs: every block runs in bash, with files that stand in for the runner's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml

ROOT = Path(__file__).parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
DEMO = Path(str(files("bocr_onnx.calibration") / "demo.onnx"))
DIGITS = Path(str(files("bocr_onnx.calibration") / "digits.npz"))
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
PINNED = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "action.yml").exists(), reason="the repository is not here"),
]


def filled(value: str, known: Mapping[str, str]) -> str:
    """Returns text with its expressions replaced; ``a != '' && b || ''`` is the only kind beside names."""

    def one(found: re.Match[str]) -> str:
        condition = re.fullmatch(r"([\w.-]+) != '' && ([\w.-]+) \|\| ''", found[1])
        if condition:
            return known[condition[2]] if known[condition[1]] else ""
        return known[found[1]]

    return EXPRESSION.sub(one, value)


class Runner:
    """What GitHub gives a job, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output, self.summary = folder / "output.txt", folder / "summary.md"
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(folder),
            "GITHUB_OUTPUT": str(self.output), "GITHUB_STEP_SUMMARY": str(self.summary), "RUNNER_TEMP": str(folder),
            "GITHUB_ACTION_PATH": str(ROOT), "BOCR_ONNX_DEVICES": str(folder / "devices.json"),
            "BOCR_ONNX_HISTORY": str(folder / "history.db"),
        }  # fmt: skip

    def run(self, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
        self.output.write_text("")
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script], cwd=self.folder,
            env=self.environment | environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def outputs(self) -> dict[str, str]:
        """Returns outputs as GitHub reads them: a name, a mark, lines up to the mark."""
        lines, found = iter(self.output.read_text().splitlines()), {}
        for line in lines:
            name, mark = line.split("<<")
            found[name] = "\n".join(iter(lambda: next(lines), mark))
        return found


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    (tmp_path / "model.onnx").write_bytes(DEMO.read_bytes())
    return Runner(tmp_path)


def steps(given: Mapping[str, str]) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Yields the blocks of the action that run, with their environment."""
    inputs = {f"inputs.{name}": str(one.get("default", "")) for name, one in ACTION["inputs"].items()}
    known = inputs | {f"inputs.{name}": value for name, value in given.items()}
    for step in ACTION["runs"]["steps"]:
        if "run" in step and ("if" not in step or known[step["if"].split()[0]]):
            yield step, {name: filled(value, known) for name, value in step.get("env", {}).items()}


def test_no_input_comes_into_a_script_and_nothing_is_taken_from_a_branch() -> None:
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step.get("run", "")
        assert "uses" in step or step["shell"] == "bash"
        assert "uses" not in step or PINNED.fullmatch(step["uses"])
    known = {"id": "check"} | {step["id"]: step for step in ACTION["runs"]["steps"] if "id" in step}
    for one in ACTION["outputs"].values():
        assert EXPRESSION.fullmatch(one["value"])[1].split(".")[1] in known  # type: ignore[index]


def small(tmp_path: Path) -> Path:
    """Returns few labelled digits, so that pruning takes seconds."""
    digits = np.load(DIGITS)
    path = tmp_path / "digits.npz"
    np.savez(path, **{name: digits[name][:300] for name in digits.files})
    return path


def test_it_prunes_checks_and_gives_every_figure(runner: Runner, tmp_path: Path) -> None:
    limits = ("--max-flops 0.5", "--max-size 0.9", "", "--max-params 300k", "--min-score 0.1", "--max-drop 99")
    given = {
        "model": "model.onnx", "data": str(small(tmp_path)), "check": "\n".join([*limits, "--max-latency 50"]),
        "prune": "--flops 0.5\n--search uniform\n--recover oneshot\n",
    }  # fmt: skip
    names = []
    for step, environment in steps(given):
        names.append(step["name"])
        if step["name"] == "Install":
            continue
        found = runner.run(step["run"], **environment)
        assert found.returncode == 0, found.stdout + found.stderr
    assert names == ["Install", "Prune", "Check"]
    outputs = runner.outputs()
    assert set(outputs) == set(ACTION["outputs"])
    assert (outputs["verdict"], outputs["file"]) == ("passed", "slim.onnx")
    assert 0.4 < float(outputs["flops"]) <= 0.5
    assert float(outputs["params"]) > 1
    assert all(outputs[name] for name in ("size", "latency", "score", "drop"))
    report = json.loads(outputs["report"])
    assert [c["name"] for c in report["criteria"]][:3] == ["runs", "interface", "proof"]
    assert runner.summary.read_text().startswith("### ✅")
    assert (tmp_path / "bocr-onnx.xml").exists()
    assert not (tmp_path / "history.db").exists()


@pytest.mark.parametrize(
    ("model", "check", "code", "verdict"),
    [("model.onnx", "--max-params 1k", 1, "failed"), ("nothing.onnx", "", 2, "error"),
     ("model.onnx", "--max-latency 8ms\n--device ssh://nobody@localhost:9", 2, "error"),
     ("model.onnx", "--no-such-option", 2, "")],
)  # fmt: skip
def test_the_job_fails_as_the_check_does(model: str, check: str, code: int, verdict: str, runner: Runner) -> None:
    (environment,) = (e for step, e in steps({"model": model, "check": check}) if step["name"] == "Check")
    script = next(step["run"] for step in ACTION["runs"]["steps"] if step.get("name") == "Check")
    found = runner.run(script, **environment)
    assert found.returncode == code, found.stderr
    assert runner.outputs().get("verdict", "") == verdict


@pytest.mark.parametrize(
    "hostile", ["$(touch pwned)", "`touch pwned`", "; touch pwned", '"; touch pwned; "', "a\nb<<c", "--max-flops"]
)
def test_an_input_is_never_a_command(hostile: str, runner: Runner) -> None:
    for step, environment in steps({"model": hostile, "prune": hostile, "check": hostile, "data": hostile}):
        if step["name"] != "Install":
            assert runner.run(step["run"], **environment).returncode == 2
    assert not (runner.folder / "pwned").exists()
    assert set(runner.outputs()) <= set(ACTION["outputs"])


def test_it_installs_itself(runner: Runner) -> None:
    (step,) = (step for step, _ in steps({}) if step["name"] == "Install")
    subprocess.run([sys.executable, "-m", "venv", str(runner.folder / "venv")], check=True)
    index = {name: value for name, value in os.environ.items() if name.startswith("PIP_")} | {
        "HOME": os.environ["HOME"]
    }
    found = runner.run(
        step["run"], PACKAGE="", PATH=f"{runner.folder / 'venv/bin'}:{os.environ['PATH']}", PIP_NO_DEPS="1", **index
    )
    assert found.returncode == 0, found.stderr
    assert list(runner.folder.glob("venv/lib/*/site-packages/bocr_onnx/cli/check.py"))
    assert (runner.folder / "venv/bin/bocr-onnx").exists()


# The pipelines of docs/ci.md.

BLOCKS = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/ci.md").read_text(), re.S)]
GITHUB = next(block for block in BLOCKS if "jobs" in block)
GITLAB = next(block for block in BLOCKS if "jobs" not in block)
EXPORT = "import shutil, sys\nshutil.copy('exported.onnx', sys.argv[1])\n"


def project(folder: Path) -> None:
    """Makes what the docs call your repository: an export, requirements and images."""
    (folder / "model.onnx").rename(folder / "exported.onnx")
    (folder / "export.py").write_text(EXPORT)
    (folder / "requirements.txt").write_text("")
    from PIL import Image

    digits = np.load(DIGITS)
    for name, part in (("train", ""), ("val", "val_")):
        for i in range(200 if name == "train" else 100):
            place = folder / "images" / name / str(digits[f"{part}labels"][i])
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(digits[f"{part}images"][i]).save(place / f"{i}.png")


def test_the_workflow_of_the_docs_runs(runner: Runner) -> None:
    project(runner.folder)
    assert GITHUB["permissions"] == {"contents": "read"}
    outputs: dict[str, str] = {}
    (job,) = GITHUB["jobs"].values()
    for step in job["steps"]:
        if "run" in step:
            assert "${{" not in step["run"]
            environment = {name: filled(value, outputs) for name, value in step.get("env", {}).items()}
            found = runner.run(step["run"], **environment)
            assert found.returncode == 0, found.stderr
        elif step["uses"].startswith("bocr-onnx/"):
            assert set(step["with"]) <= set(ACTION["inputs"])
            faster = step["with"] | {"prune": f"{step['with']['prune']}\n--trials 2\n--recover oneshot"}
            for block, environment in steps(faster):
                if block["name"] != "Install":
                    found = runner.run(block["run"], **environment)
                    assert found.returncode in (0, 1), found.stderr
            outputs |= {f"steps.{step['id']}.outputs.{name}": value for name, value in runner.outputs().items()}
        else:
            assert PINNED.fullmatch(step["uses"])
    assert "of the original's latency" in found.stdout
    uploaded = next(step["with"]["path"].split() for step in job["steps"] if "upload" in step.get("uses", ""))
    assert all((runner.folder / path).exists() for path in uploaded)


def test_the_pipeline_for_gitlab_runs(runner: Runner) -> None:
    project(runner.folder)
    (job,) = GITLAB.values()
    script = "\n".join(job["script"]).replace("prune model.onnx", "prune model.onnx --trials 2 --recover oneshot")
    found = runner.run(script)
    assert found.returncode in (0, 1), found.stderr
    assert all((runner.folder / path).exists() for path in job["artifacts"]["paths"])
    assert onnx.load(runner.folder / "slim.onnx")
