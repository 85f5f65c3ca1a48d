"""Which inputs a model runs on."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from bocr_onnx.runtime import first_that_runs, session
from tests.oracle import proto

MODEL = proto("m (float[N, T] x) => (float[N, 2] y) { y = MatMul(x, V) }", V=(5, 2))


def feeds(*widths: int) -> list[dict[str, np.ndarray]]:
    return [{"x": np.zeros((1, n), np.float32)} for n in widths]


def test_the_first_inputs_that_run() -> None:
    assert first_that_runs(MODEL, feeds(5, 5)) == 0
    assert first_that_runs(MODEL, feeds(3, 4, 5)) == 2
    assert first_that_runs(MODEL, [{}, *feeds(5)]) == 1
    assert first_that_runs(MODEL, feeds(3)) is None


def test_a_model_that_does_not_open_runs_on_nothing() -> None:
    broken = proto("m (float[N, T] x) => (float[N, 2] y) { y = MatMul(x, V) }")
    assert first_that_runs(broken, feeds(5)) is None


def test_it_gives_up_when_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def late() -> Iterator[dict[str, np.ndarray]]:
        time.sleep(1)
        yield from feeds(5)

    monkeypatch.setattr(session, "RUN_LIMIT_S", 0.5)
    assert first_that_runs(MODEL, late()) is None
