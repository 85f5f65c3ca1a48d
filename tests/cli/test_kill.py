"""kill -9 at any moment loses at most the trial under way, and a resumed search ends as an uninterrupted one."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from .test_cli import DEMO, DIGITS, run

pytestmark = pytest.mark.slow

ASKED = ("prune", DEMO, "--flops", "0.5", "--data", DIGITS, "--preset", "digits", "--trials", "12")
SMALL = ("--recover", "oneshot", "--score-images", "200", "--recovery-images", "120")


def policies(folder):
    lines = (folder / "s.run" / "journal.jsonl").read_text().splitlines()[1:]
    return {t["number"]: t["widths"] for t in map(json.loads, lines) if t["state"] in ("complete", "stopped")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    done = run(*ASKED, *SMALL, "--history", "h.sqlite", "-o", "s.onnx", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def start(folder):
    command = [sys.executable, "-c", "from bocr_onnx.cli.main import run; run()", *ASKED, *SMALL]
    command += ["--history", "h.sqlite", "-o", "s.onnx"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_a_killed_search_ends_as_the_uninterrupted_one(whole, tmp_path):
    for n_ended in (2, 7):
        process, deadline = start(tmp_path), time.monotonic() + 90
        journal = tmp_path / "s.run" / "journal.jsonl"
        while time.monotonic() < deadline and process.poll() is None:
            if journal.exists() and journal.read_text().count('"seconds": 0.') >= 2 * n_ended:
                break
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (tmp_path / "s.onnx").exists()
    resumed = run("prune", DEMO, "--resume", "s.run", "--json", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert policies(tmp_path) == policies(whole)
    plans = [json.loads((folder / "s.run" / "plan.json").read_text()) for folder in (whole, tmp_path)]
    assert plans[0] == plans[1]
    listed = json.loads(run("history", "list", "--history", "h.sqlite", "--json", cwd=tmp_path).stdout)
    assert listed["searches"][0]["n_trials"] == 12
