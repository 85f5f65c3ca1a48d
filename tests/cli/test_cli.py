"""The command line as a user sees it: streams, exit codes, no traceback."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path

import onnx
import pytest

from tests.oracle import proto

pytestmark = pytest.mark.slow

CALIBRATION = Path(str(files("bocr_onnx.calibration")))
DEMO, DIGITS = str(CALIBRATION / "demo.onnx"), str(CALIBRATION / "digits.npz")


def run(*args, cwd=None):
    command = [sys.executable, "-c", "from bocr_onnx.cli.main import run; run()", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_inspect_prints_groups_and_json():
    found = run("inspect", DEMO)
    assert found.returncode == 0
    assert "% of the MACs can be pruned" in found.stdout
    assert found.stderr == ""
    record = json.loads(run("inspect", DEMO, "--json").stdout)
    assert record["prunable_share"] > 0.9
    assert {"name", "n_channels", "macs_share", "members"} <= record["groups"][0].keys()
    assert {"node", "op", "reason"} <= record["refusals"][0].keys()


def test_prune_apply_evaluate(tmp_path):
    pruned = run(
        *("prune", DEMO, "--flops", 0.5, "--data", DIGITS, "-o", "s.onnx"),
        *("--trials", 2, "--recover", "oneshot", "--json"),
        cwd=tmp_path,
    )
    assert pruned.returncode == 0, pruned.stderr
    report = json.loads(pruned.stdout)
    assert report["proof"]["passed"]
    assert "Search" in pruned.stderr
    applied = run("apply", DEMO, "s.run/plan.json", "-o", "a.onnx", cwd=tmp_path)
    assert applied.returncode == 0
    assert "% of the MACs" in applied.stdout
    scored = json.loads(run("evaluate", "s.onnx", "--data", DIGITS, "--json", cwd=tmp_path).stdout)
    assert scored["accuracy"] == pytest.approx(report["result"]["accuracy"])


@pytest.mark.parametrize(
    "args",
    [
        ("inspect", "missing.onnx"),
        ("prune", DEMO, "--flops", "0.5", "--search", "nonsense"),
        ("prune", DEMO, "--flops", "1.5", "--search", "uniform"),
        ("prune", DEMO, "--search", "uniform"),
        ("prune", DEMO, "--flops", "half", "--search", "uniform"),
        ("prune", DEMO, "--flops", "0.5", "--data", "nowhere"),
        ("apply", DEMO, "missing.json", "-o", "x.onnx"),
        ("evaluate", DEMO, "--data", "nowhere"),
        ("no-such-command",),
    ],
)
def test_errors_are_clear_and_exit_with_two(args, tmp_path):
    found = run(*args, cwd=tmp_path)
    assert found.returncode == 2
    assert found.stdout == ""
    assert "error" in found.stderr.lower()
    assert "Traceback" not in found.stderr
    assert not list(tmp_path.glob("*.onnx"))


def test_help_and_version():
    assert run("--version").stdout.startswith("bocr-onnx ")
    for command in ("inspect", "prune", "apply", "evaluate"):
        assert run(command, "--help").returncode == 0


def test_ctrl_c_keeps_the_trials_and_resume_goes_on(tmp_path):
    code = "from bocr_onnx.cli.main import run; run()"
    args = ["prune", DEMO, "--flops", "0.5", "--data", DIGITS, "-o", "s.onnx", "--trials", "30", "--recover", "oneshot"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *args], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    journal = tmp_path / "s.run" / "journal.jsonl"
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and (not journal.exists() or journal.read_text().count("complete") < 3):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert "--resume" in stderr
    assert not (tmp_path / "s.onnx").exists()
    options = json.loads((tmp_path / "s.run" / "run.json").read_text())
    finished = journal.read_text().count('"complete"')
    assert finished >= 3
    (tmp_path / "s.run" / "run.json").write_text(json.dumps(options | {"trials": finished + 1}))
    resumed = run("prune", DEMO, "--resume", "s.run", "--json", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["search"]["trials"] == finished + 1
    assert (tmp_path / "s.onnx").exists()


def test_finetune_trains_towards_the_original(tmp_path):
    assert run("prune", DEMO, "--flops", 0.5, "--search", "uniform", "-o", "s.onnx", cwd=tmp_path).returncode == 0
    asked = ("finetune", "s.onnx", "--teacher", DEMO, "--data", DIGITS, "--device", "cpu", "--batch-size", 64)
    found = run(*asked, "--epochs", 1, "--learning-rate", 0.05, "--json", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    record = json.loads(found.stdout)
    assert record["after"] > record["before"]
    assert "Finetuning" in found.stderr
    wrong = run(*asked, "--optimizer", "adam", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "adamw" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_two_processes_train_together_and_one_writes(tmp_path):
    assert run("prune", DEMO, "--flops", 0.5, "--search", "uniform", "-o", "s.onnx", cwd=tmp_path).returncode == 0
    script = tmp_path / "bocr-onnx.py"  # the engine starts the same command line again, as it does the console script
    script.write_text("from bocr_onnx.cli.main import run\nrun()\n")
    asked = ("finetune", "s.onnx", "--teacher", DEMO, "--data", DIGITS, "--device", "cpu", "--devices", 2)
    command = [sys.executable, script, *asked, "--batch-size", 64, "--learning-rate", 0.05, "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    found = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, cwd=tmp_path, check=False, env=environment
    )
    assert found.returncode == 0, found.stderr
    record = json.loads(found.stdout)
    assert record["after"] > record["before"]
    assert (tmp_path / "s_finetuned.run" / "report.json").exists()


def test_a_device_that_is_not_there_is_named(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    found = run("finetune", DEMO, "--teacher", DEMO, "--data", DIGITS, "--device", "cuda", "-o", "t.onnx", cwd=tmp_path)
    assert found.returncode == 2
    assert "cuda must be there to train on" in found.stderr
    assert "Traceback" not in found.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "args",
    [
        ("inspect", DEMO),
        ("prune", DEMO, "--flops", "0.5", "--search", "uniform"),
        ("apply", DEMO, "plan.json", "-o", "x.onnx"),
        ("evaluate", DEMO, "--data", DIGITS),
        ("finetune", DEMO, "--teacher", DEMO, "--data", DIGITS),
    ],
    ids=lambda args: args[0],
)
def test_every_command_takes_input_shapes(args, tmp_path):
    found = run(*args, "--input-shape", "inptu:1x1x8x8", cwd=tmp_path)
    assert found.returncode == 2
    assert "got one of 'inptu'" in found.stderr
    assert "Did you mean 'input'?" in found.stderr


def test_hints_name_no_option_that_the_command_lacks(tmp_path):
    """The same error in two commands: only one of them has --search."""
    two = proto(
        """m (float[N, 1, 8, 8] x, float[N, 4] z) => (float[N, 4] y) {
            c = Conv(x, W) r = Relu(c) s = Conv(r, V) p = GlobalAveragePool(s) f = Flatten(p) y = Add(f, z)
        }""",
        W=(16, 1, 3, 3),
        V=(4, 16, 1, 1),
    )
    onnx.save(two, tmp_path / "m.onnx")
    evaluated = run("evaluate", "m.onnx", "--data", DIGITS, cwd=tmp_path)
    pruned = run("prune", "m.onnx", "--flops", "0.5", "--data", DIGITS, "-o", "s.onnx", cwd=tmp_path)
    for done in (evaluated, pruned):
        assert done.returncode == 2
        assert "must have one input to be fed images" in done.stderr
    assert "--search" in pruned.stderr
    assert "--search" not in evaluated.stderr
