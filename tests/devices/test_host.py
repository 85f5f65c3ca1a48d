"""Latency is measured in turn by two clocks, and the raw samples of both are kept."""

from importlib.resources import files
from types import SimpleNamespace

import numpy as np
import pytest

from bocr_onnx.devices import Latency, choose_clock
from bocr_onnx.devices import host as host_module
from bocr_onnx.devices.host import time_sessions
from bocr_onnx.runtime import open_session

FEEDS = {"x": np.zeros((3, 2), np.float32)}
DEMO = str(files("bocr_onnx.calibration") / "demo.onnx")


class Host:
    """Two clocks that only runs advance."""

    def __init__(self):
        self.wall = self.cpu = 0.0
        self.log = []

    def session(self, name, *, wall_ms, cpu_ms, warm_up_ms=None):
        def run(names, feeds, limits=None):
            assert names is None
            assert feeds.keys() == {"x"}
            cold = warm_up_ms is not None and self.log.count(name) < 3
            self.log.append(name)
            self.wall += (warm_up_ms if cold else wall_ms) / 1e3
            self.cpu += (warm_up_ms if cold else cpu_ms) / 1e3
            return []

        return SimpleNamespace(run=run)


@pytest.fixture
def host(monkeypatch):
    host = Host()
    clocks = SimpleNamespace(perf_counter=lambda: host.wall, thread_time=lambda: host.cpu)
    monkeypatch.setattr(host_module, "time", clocks)
    return host


def test_the_order_of_a_pair_alternates_after_warm_up(host):
    sessions = [host.session(name, wall_ms=1, cpu_ms=1) for name in "ab"]
    found = time_sessions(sessions, FEEDS, threads=1, budget_s=0.0)
    assert host.log[:6] == ["a"] * 3 + ["b"] * 3
    assert host.log[6:] == ["a", "b", "b", "a"] * 8
    assert [len(f.wall_ms) for f in found] == [16, 16]
    assert [len(f.cpu_ms) for f in found] == [16, 16]


def test_several_models_go_forward_and_then_backward(host):
    sessions = [host.session(name, wall_ms=1, cpu_ms=1) for name in "abc"]
    time_sessions(sessions, FEEDS, threads=1, budget_s=0.0)
    assert host.log[9:] == list("abccba") * 8


def test_each_model_gets_its_own_samples_of_both_clocks(host):
    sessions = [
        host.session("a", wall_ms=3, cpu_ms=2, warm_up_ms=50),
        host.session("b", wall_ms=7, cpu_ms=5, warm_up_ms=50),
    ]
    a, b = time_sessions(sessions, FEEDS, threads=1, budget_s=0.0)
    assert a.wall_ms == pytest.approx([3] * 16)
    assert a.cpu_ms == pytest.approx([2] * 16)
    assert b.wall_ms == pytest.approx([7] * 16)
    assert b.cpu_ms == pytest.approx([5] * 16)


def test_all_models_are_quoted_by_one_clock(host):
    calm, delayed = host.session("a", wall_ms=2, cpu_ms=2), host.session("b", wall_ms=4, cpu_ms=2)
    found = time_sessions([calm, delayed], FEEDS, threads=1, budget_s=0.0)
    assert [f.clock for f in found] == ["cpu", "cpu"]
    assert [f.median_ms for f in found] == pytest.approx([2, 2])
    found = time_sessions([calm, delayed], FEEDS, threads=2, budget_s=0.0)
    assert [f.clock for f in found] == ["wall", "wall"]
    assert [f.threads for f in found] == [2, 2]
    assert [f.median_ms for f in found] == pytest.approx([2, 4])


def test_the_budget_buys_runs_up_to_a_limit(host):
    session = host.session("a", wall_ms=10, cpu_ms=10)
    (found,) = time_sessions([session], FEEDS, threads=1, budget_s=0.395)
    assert len(found.wall_ms) == 40
    (found,) = time_sessions([session], FEEDS, threads=1, budget_s=60.0)
    assert len(found.wall_ms) == 200


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


def test_what_is_fed_may_be_a_scalar_and_the_samples_in_it_are_recorded():
    session = SimpleNamespace(run=lambda names, feeds, limits=None: [])
    (found,) = time_sessions([session], {"x": np.float32(1)}, threads=1, batch=4, budget_s=0.0)
    assert found.batch == 4


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


def test_onnx_runtime_on_one_thread_works_on_the_calling_thread():
    session = open_session(DEMO, threads=1)
    feeds = {"input": np.zeros((32, 1, 8, 8), np.float32)}
    (found,) = time_sessions([session], feeds, threads=1, batch=32, budget_s=0.0)
    assert found.batch == 32
    assert len(found.wall_ms) == len(found.cpu_ms) == 16
    assert sum(found.cpu_ms) > 0
    assert found.median_of("cpu") <= found.median_of("wall")
