"""The latency that a report holds, and the bounds that it says were missed."""

import statistics

import numpy as np
import onnx
import pytest

from bocr_onnx.cost import CostModel, Terms
from bocr_onnx.graph import from_proto
from bocr_onnx.pipeline.finish import _missed, measure_latency
from bocr_onnx.search import Budget

SCALAR_FIRST = """
<ir_version: 8, opset_import: ["" : 17]>
m (float scale, float[192, 192] x) => (float[192, 192] y) { %s }
"""


@pytest.fixture(scope="module")
def models():
    bodies = "a = MatMul(x, x) b = MatMul(a, x) y = Mul(b, scale)", "y = Mul(x, scale)"
    return [onnx.parser.parse_model(SCALAR_FIRST % body) for body in bodies]


def test_both_clocks_are_recorded_and_one_is_quoted(models):
    large, small = models
    record = measure_latency(from_proto(large), small, threads=1)
    assert record["threads"] == 1
    assert record["batch"] == 1
    assert record["clock"] in ("cpu", "wall")
    assert record["baseline_median_ms"] > 2 * record["result_median_ms"]
    for name in ("baseline", "result"):
        wall, cpu, quoted = (record[f"{name}_{key}_ms"] for key in ("wall", "cpu", "samples"))
        assert len(wall) == len(cpu) >= 16
        assert wall != cpu
        assert quoted == record[f"{name}_{record['clock']}_ms"]
        low, middle, high = statistics.quantiles(quoted, n=4, method="inclusive")
        assert record[f"{name}_median_ms"] == pytest.approx(middle, abs=2e-5)
        assert record[f"{name}_iqr_ms"] == pytest.approx(high - low, abs=4e-5)


def cost(macs, params=10_000, size=40_000):
    ones = np.ones((1, 1, 1))
    totals = (Terms(np.array([float(n)]), ones) for n in (macs, params, size))
    return CostModel(np.zeros(0, np.int64), *totals, 0)


@pytest.mark.parametrize(
    ("after", "missed"),
    [
        (cost(50_000, 7_000), []),
        (cost(50_040, 7_006), []),
        (cost(50_100, 7_000), ["--flops 0.5: kept 0.5010"]),
        (cost(40_000, 8_000), ["--params 0.7: kept 0.8000"]),
        (cost(60_000, 10_000, 1), ["--flops 0.5: kept 0.6000", "--params 0.7: kept 1.0000"]),
    ],
)
def test_a_bound_is_missed_where_more_is_kept_than_rounding_explains(after, missed):
    assert _missed(Budget({"flops": 0.5, "params": 0.7}), cost(100_000), after, {}) == missed


@pytest.mark.parametrize(("ms", "missed"), [(6.0, []), (6.15, []), (6.3, ["--latency 0.6: kept 0.6300"])])
def test_a_latency_is_missed_where_it_cannot_be_noise(ms, missed):
    latency = {"baseline_median_ms": 10.0, "result_median_ms": ms}
    assert _missed(Budget({"latency": 0.6}), cost(100_000), cost(50_000), latency) == missed
