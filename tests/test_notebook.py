"""In a notebook, results are tables and long steps show how far they are."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import bocr_onnx

pytestmark = pytest.mark.slow

nbformat = pytest.importorskip("nbformat")
NotebookClient = pytest.importorskip("nbclient").NotebookClient

DEMO = str(files("bocr_onnx.calibration") / "demo.onnx")
CELLS = (
    f"import bocr_onnx\nbocr_onnx.inspect({DEMO!r})",
    f"bocr_onnx.prune({DEMO!r}, flops=0.5, search='uniform', history='none', output='slim.onnx')",
    f"bocr_onnx.bench([{DEMO!r}, 'slim.onnx'], runs=12)",
)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[list[Any]]:
    """Returns the outputs of the cells, run by a kernel of its own."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    folder = tmp_path_factory.mktemp("book")
    NotebookClient(book, timeout=240, resources={"metadata": {"path": str(folder)}}).execute()
    return [cell.outputs for cell in book.cells]


def html_of(outputs: list[Any]) -> str:
    (result,) = (one for one in outputs if one.output_type == "execute_result")
    return str(result.data["text/html"])


def test_an_inspection_is_a_table_of_groups(outputs: list[list[Any]]) -> None:
    html = html_of(outputs[0])
    found = bocr_onnx.inspect(DEMO)
    assert all(group.name in html for group in found.groups)
    assert f"{found.cost.macs:,} MACs" in html


def test_a_report_is_its_verdict_and_its_figures(outputs: list[list[Any]]) -> None:
    html = html_of(outputs[1])
    assert "Every target is met." in html
    assert re.search(r"<td>MACs</td><td>[\d,]+</td><td>[\d,]+ \(4\d\.\d%\)</td>", html)


def test_a_benchmark_is_a_table_of_models(outputs: list[list[Any]]) -> None:
    html = html_of(outputs[2])
    assert DEMO in html
    assert re.search(r"<td>\d\.\d\d \(\d\.\d\d to \d\.\d\d\)</td>", html)


def test_long_steps_show_in_a_notebook(outputs: list[list[Any]]) -> None:
    shown = [one for one in outputs[1] if one.output_type in ("stream", "display_data")]
    assert any("Measuring latency" in str(one) or "widget" in str(one) for one in shown)


def test_names_are_escaped() -> None:
    from bocr_onnx.report.notebook import benchmark_html, inspection_html

    group = {"name": "<script>x</script>", "n_channels": 4, "macs_share": 0.5}
    refusal = {"node": "<b>", "op": "&", "reason": "<i>", "macs_share": 0.1}
    cost = {"macs": 1, "params": 1}
    html = inspection_html({"groups": [group], "refusals": [refusal], "cost": cost, "prunable_share": 0.5})
    html += benchmark_html({"models": [{"model": "<u>", "median_ms": 1.0, "iqr_ms": 0.0, "size_bytes": 1}]})
    assert not re.search(r"<(script|b|i|u)>", html)
    assert "&lt;script&gt;" in html


def test_nothing_is_shown_outside_a_notebook(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bocr_onnx.prune(DEMO, flops=0.6, search="uniform", history="none", output=tmp_path / "s.onnx")
    assert capfd.readouterr() == ("", "")
