"""Latency is measured in turn, and its raw samples are kept."""

import numpy as np
import pytest

from bocr_onnx.devices import Latency, compare_latency


class Recorder:
    """Stands where a session stands, to see the order of runs."""

    def __init__(self, name, log):
        self.name, self.log = name, log

    def run(self, names, feeds):
        assert names is None
        assert feeds.keys() == {"x"}
        self.log.append(self.name)


def test_runs_are_interleaved_after_warm_up():
    log = []
    found = compare_latency([Recorder("a", log), Recorder("b", log)], {"x": np.zeros((3, 2))}, threads=1, budget_s=0.0)
    assert log[:6] == ["a"] * 3 + ["b"] * 3
    assert log[6:] == ["a", "b"] * 15
    assert [len(f.samples_ms) for f in found] == [15, 15]
    assert found[0].batch == 3


def test_median_and_spread():
    latency = Latency((1.0, 2.0, 3.0, 4.0, 100.0), threads=1, batch=1)
    assert latency.median_ms == 3.0
    assert latency.iqr_ms == pytest.approx(2.0)
