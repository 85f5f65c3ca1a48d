"""Models run in turn on two clocks, in sessions made anew; ratios, intervals and doubts come from raw samples."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import bocr_onnx
from bocr_onnx.cli.main import app
from bocr_onnx.devices import Host, Kernel, Latency, Machine, Request, choose_clock, runner, speedup
from bocr_onnx.devices.compare import doubts
from bocr_onnx.devices.result import read_result
from bocr_onnx.errors import DeviceError, ModelError

DEMO = str(files("bocr_onnx.calibration") / "demo.onnx")


def test_models_go_forward_and_then_backward() -> None:
    log: list[str] = []
    sessions = [SimpleNamespace(run=lambda names, feeds, name=name: log.append(name)) for name in "abc"]
    found = runner.time_round(sessions, {}, 4)
    assert log == list("abccba") * 2
    assert [[len(clock) for clock in one] for one in found] == [[4, 4]] * 3


def test_each_model_gets_its_own_samples_of_both_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"wall": 0.0, "cpu": 0.0}
    clocks = SimpleNamespace(perf_counter=lambda: now["wall"], thread_time=lambda: now["cpu"])
    monkeypatch.setattr(runner, "time", clocks)

    def session(wall_ms: float, cpu_ms: float) -> Any:
        def run(names: None, feeds: dict[str, Any]) -> None:
            now["wall"] += wall_ms / 1e3
            now["cpu"] += cpu_ms / 1e3

        return SimpleNamespace(run=run)

    a, b = runner.time_round([session(3, 2), session(7, 5)], {}, 2)
    assert a[0] == pytest.approx([3, 3])
    assert a[1] == pytest.approx([2, 2])
    assert b[0] == pytest.approx([7, 7])
    assert b[1] == pytest.approx([5, 5])


def test_a_budget_buys_rounds_and_runs_up_to_a_limit() -> None:
    def asked(first_ms: float, **request: Any) -> int:
        return runner._runs_per_round([{"first_ms": [first_ms]}], {"budget_s": 1.2} | request)

    assert asked(10.0) == 10
    assert asked(1e6) == runner.MIN_RUNS
    assert asked(1e-3) == runner.MAX_RUNS
    assert asked(10.0, runs=100) == 10  # of 12 rounds
    demo = Path(DEMO).read_bytes()
    feeds = {"input": np.zeros((1, 1, 8, 8), np.float32)}
    (found,) = Host().measure([demo], feeds, Request(budget_s=0.0)).latencies
    assert found.n_rounds == runner.MIN_ROUNDS


def latency(*rounds: list[float], clock: Any = "wall") -> Latency:
    flat = tuple(sample for samples in rounds for sample in samples)
    return Latency(flat, flat, clock, threads=1, batch=1, n_rounds=len(rounds))


def test_a_speedup_is_the_mean_of_rounds_with_its_interval() -> None:
    before = latency([2.0] * 4, [4.0] * 4, [6.0] * 4)
    found = speedup(before, latency([1.0] * 4, [2.0] * 4, [3.0] * 4))
    assert (found.value, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))
    assert found.margin == pytest.approx(0.0)
    spread = [1.0, 1.1, 1 / 1.1]
    found = speedup(before, latency(*([b * s] * 4 for b, s in zip((2.0, 4.0, 6.0), spread, strict=True))))
    assert found.value == pytest.approx(1.0)
    reach = 9.924843 * math.log(1.1) / math.sqrt(3)  # Student's t of 99 % for two degrees of freedom
    assert math.log(found.high) == pytest.approx(reach, rel=1e-5)
    assert speedup(latency([2.0]), latency([1.0])).high == math.inf


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        a, b = (latency(*(list(rng.normal(1, 0.02) + rng.exponential(0.05, 8)) for _ in range(12))) for _ in range(2))
        found = speedup(a, b)
        held += found.low <= 1 <= found.high
    assert 388 <= held <= 400


MACHINE = Machine(
    "Linux 6", "x86_64", "a processor", ("avx2",), 2, 1 << 30, "3.11", "2.0", "1.30", "", False, None, None, ""
)


@pytest.mark.parametrize(
    ("change", "one", "providers", "words"),
    [
        ({}, latency([1.0] * 9), ["CPUExecutionProvider"], None),
        ({"emulated": True}, latency([1.0] * 9), ["CPUExecutionProvider"], r"\(a processor\) is emulated"),
        ({"battery": "Discharging 40 %"}, latency([1.0] * 9), ["CPUExecutionProvider"], "runs on battery"),
        ({}, latency([1.0] * 9), ["AzureExecutionProvider"], "a session fell back to"),
        ({}, latency([1.0] * 3, [1.0] * 3, [1.1] * 3), ["CPUExecutionProvider"], "took 10% longer than the first"),
        ({}, latency([1.0, 2.0, 1.0, 2.0, 1.0, 2.0]), ["CPUExecutionProvider"], "times scatter by"),
        ({}, latency([1.0] * 9, clock="cpu"), ["CPUExecutionProvider"], "other processes took part of the time"),
    ],
)
def test_figures_that_may_not_be_trusted_say_why(
    change: dict[str, Any], one: Latency, providers: list[str], words: str | None
) -> None:
    found = doubts(dataclasses.replace(MACHINE, **change), (one,), "CPUExecutionProvider", [providers])
    if words is None:
        assert found == ()
    else:
        assert len(found) == 1
        assert re.search(words, found[0])


def test_nodes_that_ran_elsewhere_are_counted() -> None:
    kernels = (Kernel("a", "Conv", "XnnpackExecutionProvider", 1.0), Kernel("b", "Add", "CPUExecutionProvider", 1.0))
    one = dataclasses.replace(latency([1.0] * 9), kernels=kernels)
    (note,) = doubts(MACHINE, (one,), "XnnpackExecutionProvider", [["XnnpackExecutionProvider"]])
    assert note == "1 nodes ran on CPUExecutionProvider instead of XnnpackExecutionProvider"


def test_a_machine_under_emulation_is_noticed() -> None:
    assert runner._is_emulated("aarch64", "vendor_id : AuthenticAMD")
    assert runner._is_emulated("x86_64", "CPU implementer : 0x41")
    assert not runner._is_emulated("x86_64", "vendor_id : GenuineIntel")
    assert not runner._is_emulated("aarch64", "CPU implementer : 0x41")


def test_the_runner_is_a_file_of_its_own(tmp_path: Path) -> None:
    """Without this package: nothing but numpy and onnxruntime, in a folder with its request."""
    source = Path(runner.__file__).read_text()
    assert "bocr_onnx." not in source.replace("bocr_onnx.devices", "")
    assert "from bocr_onnx" not in source
    (tmp_path / "runner.py").write_text(source)
    (tmp_path / "0.onnx").write_bytes(Path(DEMO).read_bytes())
    np.savez(tmp_path / "feeds.npz", np.zeros((1, 1, 8, 8), np.float32))
    request = {"inputs": ["input"], "n_models": 1, "threads": 1, "budget_s": 0.0}
    (tmp_path / "request.json").write_text(json.dumps(request))
    command = [sys.executable, "-I", str(tmp_path / "runner.py"), str(tmp_path)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert runner.BEGIN not in done.stdout  # nobody waits: its input has ended
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        text = process.stdout.read()
    found = json.loads(text.split(runner.BEGIN)[1].split(runner.END)[0])
    assert len(found["timings"][0]["wall_ms"]) == runner.MIN_ROUNDS


@pytest.mark.parametrize(
    ("wall", "cpu", "threads", "clock"),
    [
        ([[1.09] * 3, [2.0] * 3], [[1.0] * 3, [2.0] * 3], 1, "wall"),
        ([[1.11] * 3, [2.0] * 3], [[1.0] * 3, [2.0] * 3], 1, "cpu"),
        ([[1.0] * 3, [2.3] * 3], [[1.0] * 3, [2.0] * 3], 1, "cpu"),
        ([[1.0, 1.0, 9.0]], [[1.0, 1.0, 1.0]], 1, "wall"),
        ([[3.0] * 3], [[1.0] * 3], 2, "wall"),
        ([[3.0] * 3], [[1.0] * 3], 0, "wall"),
        ([[3.0] * 3, [3.0] * 3], [[0.0, 0.0, 15.6], [1.0] * 3], 1, "wall"),
    ],
    ids=["calm", "first delayed", "second delayed", "one outlier", "two threads", "all cores", "coarse CPU clock"],
)
def test_the_clock_depends_on_medians_and_threads(wall, cpu, threads, clock):
    assert choose_clock(wall, cpu, threads=threads) == clock


def test_median_and_spread_are_of_the_quoted_clock():
    wall, cpu = (1.0, 2.0, 3.0, 4.0, 100.0), (0.5, 1.0, 1.5, 2.0, 50.0)
    quoted = {clock: Latency(wall, cpu, clock, threads=1, batch=1) for clock in ("wall", "cpu")}
    assert quoted["wall"].samples_ms == wall
    assert quoted["wall"].median_ms == 3.0
    assert quoted["wall"].iqr_ms == pytest.approx(2.0)
    assert quoted["cpu"].samples_ms == cpu
    assert quoted["cpu"].median_ms == 1.5
    assert quoted["cpu"].iqr_ms == pytest.approx(1.0)
    assert quoted["cpu"].median_of("wall") == 3.0
    assert quoted["cpu"].iqr_of("wall") == pytest.approx(2.0)


def test_cores_may_be_chosen_and_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[set[int]] = []
    before = os.sched_getaffinity(0)
    real = os.sched_setaffinity
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: (given.append(set(cores)), real(pid, cores)))
    feeds = {"input": np.zeros((1, 1, 8, 8), np.float32)}
    core = min(before)
    Host().measure([Path(DEMO).read_bytes()], feeds, Request(budget_s=0.0, pin=(core,)))
    assert given == [{core}, before]
    assert os.sched_getaffinity(0) == before
    with pytest.raises(DeviceError, match=r"cores \[99999\] must be there"):
        Host().measure([Path(DEMO).read_bytes()], feeds, Request(budget_s=0.0, pin=(99_999,)))
    assert os.sched_getaffinity(0) == before


def test_bench_compares_files_and_prints_a_table(tmp_path: Path) -> None:
    slim = tmp_path / "slim.onnx"
    bocr_onnx.prune(DEMO, flops=0.5, search="uniform", output=slim, history="none")
    found = bocr_onnx.bench([DEMO, slim], seconds=0.5)
    assert len(found.speedups) == 1
    record = json.loads(json.dumps(found.as_json()))
    assert [row["model"] for row in record["models"]] == [DEMO, str(slim)]
    assert record["models"][1]["speedup"]["low"] < record["models"][1]["speedup"]["high"]
    assert record["device"]["device"] == "host"
    assert len(record["models"][0]["wall_ms"]) == len(record["models"][0]["cpu_ms"])
    shown = CliRunner().invoke(app, ["bench", DEMO, str(slim), "--seconds", "0.2", "--profile", "-q"])
    assert shown.exit_code == 0, shown.output
    assert "Conv" in shown.output
    assert "99 % interval" in shown.output


def test_a_device_that_gives_too_little_is_refused() -> None:
    timing = {"init_ms": [1.0], "first_ms": [1.0], "wall_ms": [[1.0, 1.0]], "cpu_ms": [[1.0, 1.0]]}
    found: dict[str, Any] = {
        "machine": dataclasses.asdict(MACHINE), "after": {"clock_mhz": None, "temperature_c": None},
        "providers": [["CPUExecutionProvider"]], "timings": [timing, timing],
    }  # fmt: skip
    assert len(read_result("x", found, Request(), 2).latencies) == 2
    for timings in ([timing], [timing, timing | {"wall_ms": [[1.0]]}], [timing | {"cpu_ms": [[1.0], [1.0, 1.0]]}] * 2):
        with pytest.raises(DeviceError, match="must give as many samples of each of 2 models"):
            read_result("x", found | {"timings": timings}, Request(), 2)
    for wrong in ([[]], [], [[-1.0]], [[float("nan")]]):
        with pytest.raises(DeviceError, match=r"must give a whole result, got timings\.0\.wall_ms"):
            read_result("x", found | {"timings": [timing | {"wall_ms": wrong}] * 2}, Request(), 2)


def test_models_with_other_inputs_are_not_compared(tmp_path: Path) -> None:
    import onnx

    text = '<ir_version: 8, opset_import: ["" : 17]> m (float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "other.onnx")
    with pytest.raises(ModelError, match=r"must have the inputs of .*demo"):
        bocr_onnx.bench([DEMO, tmp_path / "other.onnx"])


def test_who_is_opened_first_changes_from_round_to_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of two sessions is half a percent slower; in turn, that goes to both."""
    opened: list[str] = []

    def session(model: str, request: Any, timing: dict[str, Any], feeds: Any) -> Any:
        opened.append(model)
        timing["first_ms"].append(1.0)
        return SimpleNamespace(run=lambda names, feeds: None, get_providers=lambda: ["CPUExecutionProvider"])

    monkeypatch.setattr(runner, "_opened", session)
    found = runner._rounds(["a", "b"], {}, {"budget_s": 0.0}, None)
    assert opened == list("abbaabba")
    assert [len(t["wall_ms"]) for t in found["timings"]] == [4, 4]
