"""What exit codes mean: 0, 1, 2, 70 for a bug, 130 and 143 for an interrupt at any stage, with a hint that works."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.oracle import proto
from tests.served import Ask, served

pytestmark = pytest.mark.slow

DEMO, DIGITS = (str(files("bocr_onnx.calibration") / name) for name in ("demo.onnx", "digits.npz"))
SMALL = ("--data", DIGITS, "--score-images", "60", "--recovery-images", "60", "--history", "none")

STAGES = {
    "images": "Loading images",
    "original": "Scoring the original on unseen images",
    "calibration": "Measuring the original on recovery images",
    "sensitivity": "Scanning sensitivity of groups",
    "search": "Search (",
    "recovery": "Recovering finalist",
    "unseen": "Scoring the slim model on unseen images",
    "finetuning": "Finetuning",
    "proof": "Proving the cut",
    "latency": "Measuring latency",
}
KEEPS = {"calibration", "sensitivity", "search", "recovery", "unseen", "finetuning", "proof", "latency"}
"""Stages at which something is there to go on with."""


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    with served("torch") as found:
        yield found


@pytest.mark.parametrize("stage", STAGES)
def test_an_interrupt_ends_with_130_and_a_hint_that_works(stage: str, ask: Ask, tmp_path: Path) -> None:
    slim = tmp_path / "s.onnx"
    command = ("prune", DEMO, "--flops", "0.5", "--search", "random", "--trials", "3", "-o", str(slim), *SMALL)
    command += ("--finetune", "0.1") if stage == "finetuning" else ()
    answer = ask(*command, at=STAGES[stage])
    assert answer.sent, answer.text
    assert answer.code == 130, answer.text
    assert "Traceback" not in answer.text
    if stage in KEEPS:
        again = answer.words.partition("Go on with: ")[2]
        program, *command = shlex.split(again)
        assert program == "bocr-onnx", answer.text
    else:
        assert "start again with the same command" in answer.text
    done = ask(*command)
    assert done.code == 0, done.text
    assert slim.exists()


@pytest.mark.parametrize("stage", ["images", "search", "finetuning"])
def test_a_termination_ends_with_143(stage: str, ask: Ask, tmp_path: Path) -> None:
    command = (
        "prune",
        DEMO,
        "--flops",
        "0.5",
        "--search",
        "random",
        "--trials",
        "3",
        "-o",
        f"{tmp_path}/s.onnx",
        *SMALL,
    )
    command += ("--finetune", "0.1") if stage == "finetuning" else ()
    answer = ask(*command, at=STAGES[stage], signal=signal.SIGTERM)
    assert answer.code == 143, answer.text


IMPORTS = """
import os, signal, sys
class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Stop())
sys.argv = ["bocr-onnx", *{arguments!r}]
from bocr_onnx.cli.entry import run
run()
"""


@pytest.mark.parametrize("module", ["typer", "rich.progress", "onnx", "onnxruntime"])
def test_an_interrupt_of_an_import_ends_with_130(module: str) -> None:
    code = IMPORTS.format(name=module, arguments=["inspect", DEMO])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert "start again with the same command" in done.stderr
    assert "Traceback" not in done.stderr


BUG = """
import sys
import bocr_onnx.graph.load
def broken(*args, **kwargs):
    raise ZeroDivisionError("of the test")
sys.modules["bocr_onnx.graph.load"]._check = broken
sys.argv = ["bocr-onnx", *{arguments!r}]
from bocr_onnx.cli.main import run
run()
"""


def test_a_bug_ends_with_70_and_a_line() -> None:
    for arguments in (["inspect", DEMO], ["--debug", "inspect", DEMO], ["inspect", DEMO, "--debug"]):
        code = BUG.format(arguments=arguments)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 70, done.stderr
        assert "unexpected ZeroDivisionError: of the test" in done.stderr
        assert "please report it" in done.stderr
        assert ("Traceback" in done.stderr) is ("--debug" in arguments)


def test_a_missed_target_ends_with_1_and_a_met_one_with_0(ask: Ask, tmp_path: Path) -> None:
    """Recovery adds biases to a model that has none, so that the file is larger than was asked for."""
    assert ask("prune", DEMO, "--flops", "0.5", "--search", "uniform", "-o", f"{tmp_path}/a.onnx").code == 0
    model = proto(
        """m (float[N, 1, 8, 8] x) => (float[N, 10] y) {
            a = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu(a) b = Conv(r, v) s = Relu(b)
            p = GlobalAveragePool(s) f = Flatten(p) y = Gemm <transB = 1> (f, g)
        }""",
        w=(16, 1, 3, 3), v=(16, 16, 1, 1), g=(10, 16),
    )  # fmt: skip
    onnx.save(model, tmp_path / "m.onnx")
    images = tmp_path / "x.npz"
    np.savez(images, images=np.random.default_rng(0).integers(0, 255, (90, 8, 8), dtype=np.uint8))
    asked = ("--params", "0.5", "--round-to", "1", "--search", "sensitivity", "--preset", "digits")
    small = ("--data", str(images), "--score-images", "30", "--recovery-images", "30", "--history", "none")
    answer = ask("prune", str(tmp_path / "m.onnx"), *asked, *small, "-o", f"{tmp_path}/b.onnx")
    assert answer.code == 1, answer.text
    assert "missed: --params 0.5" in answer.text


def test_waiting_threads_go_to_sleep_unless_the_user_says_otherwise() -> None:
    code = """
import os, sys
sys.argv = ["bocr-onnx", "--version"]
from bocr_onnx.cli.entry import run
try:
    run()
except SystemExit:
    print(os.environ.get("GOMP_SPINCOUNT"))
"""
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    bare = {k: v for k, v in os.environ.items() if k not in names}
    for given, expected in (({}, "2000"), ({names[0]: "ACTIVE"}, "None"), ({names[1]: "7"}, "7")):
        done = subprocess.run(
            [sys.executable, "-c", code], env=bare | given, capture_output=True, text=True, check=True
        )
        assert done.stdout.split()[-1] == expected
