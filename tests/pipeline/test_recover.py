"""The choice at the end: the nearest of all finalists, after its best recovery, fitted once more on all images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bocr_onnx.graph import Array
from bocr_onnx.groups import build_index
from bocr_onnx.pipeline.recover import choose
from bocr_onnx.progress import Silent
from bocr_onnx.recovery import Calibration, PolicyScorer, calibrate
from bocr_onnx.recovery.scorer import ScoredModel
from bocr_onnx.runtime import predict
from bocr_onnx.search import SearchResult
from bocr_onnx.slimming import cut
from bocr_onnx.tasks import classes_of, distortion, find_task
from bocr_onnx.tasks.score import Score
from tests.oracle import build

NET = """m (float[N, 3, 6, 6] x) => (float[N, 5] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w0, b0) ar = Relu(a)
    b = Conv <pads = [1, 1, 1, 1]> (ar, w1, b1) br = Relu(b)
    p = ReduceMean <axes = [2, 3], keepdims = 0> (br) y = Gemm <transB = 1> (p, w2, b2)
}"""
FIRST, SECOND = (4, 4), (6, 3)


def pictures(seed: int, n: int = 80) -> Array:
    return np.random.default_rng(seed).standard_normal((n, 3, 6, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def scorer() -> PolicyScorer:
    graph = build(NET, w0=(8, 3, 3, 3), b0=(8,), w1=(8, 8, 3, 3), b1=(8,), w2=(5, 8), b2=(5,))
    calibration = calibrate(build_index(graph), pictures(1))
    score = pictures(2) * np.float32(1.5)
    reference = predict(graph, graph.proto, score)
    task = find_task(graph)
    return PolicyScorer(calibration, score, task, (classes_of(reference),), (reference,))


@dataclass
class Told:
    """Stands in for a scorer: says what it was told, with weights that are named after their recovery."""

    distortions: Mapping[tuple[tuple[int, ...], str], float]
    calibration: Calibration
    images: Array
    threads: int = 0
    asked: list[tuple[tuple[int, ...], str]] = field(default_factory=list)

    def score(self, widths: npt.NDArray[np.int64], recovery: str, progress: Any = None) -> tuple[ScoredModel, Any]:
        key = (tuple(widths.tolist()), recovery)
        self.asked.append(key)
        value = self.distortions[key]
        return ScoredModel(Score(1 - value, 10), value, 0.0, 0.0), {(0, 1): np.full(1, value)}


def run(recover: str) -> Any:
    return SimpleNamespace(options=SimpleNamespace(recover=recover), progress=Silent())


def found(*finalists: tuple[int, ...]) -> SearchResult:
    return SearchResult((), tuple(np.array(f) for f in finalists))


@pytest.mark.parametrize("best", [FIRST, SECOND])
@pytest.mark.parametrize("recovery", ["sequential", "oneshot"])
def test_the_nearest_after_the_recovery_asked_for_is_chosen(best: Any, recovery: str, scorer: PolicyScorer) -> None:
    """And emitted after a weaker one where that is nearer; no other finalist is recovered twice."""
    other = SECOND if best == FIRST else FIRST
    values = {(best, "sequential"): 0.2, (other, "sequential"): 0.3, (best, "oneshot"): 0.25}
    values[best, recovery] = 0.1
    told: Any = Told(values, scorer.calibration, scorer.images)
    widths, weights, chosen = choose(run("sequential"), told, found(FIRST, SECOND))
    assert (tuple(widths.tolist()), chosen) == (best, recovery)
    assert sorted(told.asked) == sorted(values)
    if recovery == "oneshot":
        assert weights[(0, 1)] == 0.1


@pytest.mark.parametrize("asked", ["none", "oneshot"])
def test_no_stronger_recovery_is_tried_than_was_asked_for(asked: str, scorer: PolicyScorer) -> None:
    told: Any = Told({(FIRST, asked): 0.5, (SECOND, asked): 0.4}, scorer.calibration, scorer.images)
    widths, _, recovery = choose(run(asked), told, found(FIRST, SECOND))
    assert (tuple(widths.tolist()), recovery) == (SECOND, asked)


def test_the_emitted_fit_has_seen_all_images(scorer: PolicyScorer) -> None:
    calibration = scorer.calibration
    told: Any = Told({(FIRST, "sequential"): 0.1, (FIRST, "oneshot"): 0.2}, calibration, scorer.images)
    _, weights, _ = choose(run("sequential"), told, found(FIRST))
    mask = calibration.mask(np.array(FIRST))
    alone = calibration.recover(mask, "sequential")
    assert weights.keys() == alone.keys()
    assert not all(np.allclose(weights[k], alone[k], rtol=1e-3) for k in alone)

    def error(found: Any, images: Array) -> float:
        graph = calibration.graph
        slim = cut(calibration.index, mask, found)
        return distortion(predict(graph, slim, images), predict(graph, graph.proto, images))

    assert calibration.images is not None
    other = calibrate(calibration.index, scorer.images).recover(mask, "sequential")
    assert error(weights, scorer.images) < error(alone, scorer.images)
    assert error(weights, calibration.images) < error(other, calibration.images)
