"""What a command touches: no connection, no look-up of a name, no file below HOME but the history."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

DEMO, DIGITS = (str(files("bocr_onnx.calibration") / name) for name in ("demo.onnx", "digits.npz"))
FEW = ("--score-images", "120", "--recovery-images", "120", "--data", DIGITS)
NETWORK = re.compile(r"^.*\b(?:AF_INET6?|sin_addr)\b.*$", re.MULTILINE)

COMMANDS = {
    "inspect": ("inspect", DEMO),
    "prune": ("prune", DEMO, "--flops", "0.5", "--search", "sensitivity", "-o", "{out}/s.onnx", *FEW),
    "prune with workers": (
        *("prune", DEMO, "--flops", "0.5", "--search", "random", "--trials", "3", "--workers", "2"),
        *("-o", "{out}/w.onnx", *FEW),
    ),
    "finetune": ("finetune", DEMO, "--teacher", DEMO, "--data", DIGITS, "--epochs", "0.05", "-o", "{out}/f.onnx"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_is_sent_and_nothing_but_the_history_is_kept_at_home(name: str, tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace tells what a process connects to")
    home, out, trace = (tmp_path / part for part in ("home", "out", "trace"))
    home.mkdir()
    out.mkdir()
    arguments = [part.replace("{out}", str(out)) for part in COMMANDS[name]]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("BOCR_", "XDG_", "ORT_"))}
    calls = "trace=connect,sendto,sendmsg,sendmmsg"
    run = "from bocr_onnx.cli.main import run; run()"
    command = ["strace", "-f", "-qq", "-s", "200", "-e", calls, "-o", str(trace), sys.executable, "-c", run, *arguments]
    done = subprocess.run(
        command, env={**environment, "HOME": str(home)}, capture_output=True, text=True, cwd=Path.cwd(), check=False
    )
    assert done.returncode == 0, done.stderr
    assert NETWORK.findall(trace.read_text(errors="replace")) == []
    kept = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}
    history = ".local/share/bocr-onnx/history.sqlite"
    assert {name.removesuffix("-wal").removesuffix("-shm") for name in kept} <= {history}


def test_a_user_may_ask_for_what_onnxruntime_reports() -> None:
    code = "import os, bocr_onnx; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for given, expected in (({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")):
        bare = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=bare | given, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == expected
