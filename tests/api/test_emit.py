"""The latency that a report holds."""

import statistics

import onnx
import pytest

from bocr_onnx.api.emit import measure_latency
from bocr_onnx.graph import from_proto

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
