"""A change of latency has one wording, and it never calls a slower model faster."""

from dataclasses import replace

import pytest

from bocr_onnx.cli.prune import _show
from bocr_onnx.report import Figures, clock_text, figure_rows, front_record, front_rows, markdown, speed_text
from bocr_onnx.report.speed import is_slower

from .test_report import report

CPU = {"clock": "cpu", "batch": 1, "threads": 1}


def timed(before_ms, after_ms, **changes):
    figures = {
        "baseline": Figures({"macs": 20, "params": 20, "size_bytes": 20}, 0.9, before_ms),
        "result": Figures({"macs": 10, "params": 10, "size_bytes": 10}, 0.9, after_ms),
    }
    return report(**(figures | changes))


@pytest.mark.parametrize(
    ("before", "after", "words", "slower"),
    [
        (1.64, 1.0, "1.64 times faster", False),
        (1.0, 1.43, "1.43 times slower", True),
        (0.7, 1.0, "1.43 times slower", True),
        (2.0, 2.0, "as fast", False),
        (1.019, 1.0, "as fast", False),
        (1.0, 1.019, "as fast", False),
        (1.021, 1.0, "1.02 times faster", False),
        (1.0, 1.021, "1.02 times slower", True),
    ],
)
def test_wording(before, after, words, slower):
    assert speed_text(before, after) == words
    assert is_slower(before, after) is slower


def test_the_clock_is_named():
    assert clock_text({"clock": "cpu"}) == "CPU time of one thread"
    assert clock_text({"clock": "wall"}) == "wall time"
    assert clock_text({}) == "wall time"


def test_the_table_names_speed_clock_and_batch():
    assert figure_rows(timed(1.0, 1.43, latency=CPU))[-1] == (
        "latency, batch 1, CPU time of one thread",
        "1.000 ms",
        "1.430 ms",
        "1.43 times slower",
    )
    fixed = timed(2.0, 1.0, latency={"clock": "wall", "batch": 8})
    assert figure_rows(fixed)[-1][0] == "latency, batch 8, wall time"
    assert "| latency, batch 8, wall time | 2.000 ms | 1.000 ms | 2.00 times faster |" in markdown(fixed)


def test_a_front_compares_each_model_with_its_own_measurement_of_the_original():
    reports = timed(3.0, 2.0, latency=CPU), timed(4.0, 5.0, latency={"clock": "wall", "batch": 1})
    head, rows = front_rows(reports)
    columns = [dict(zip(head, row, strict=True)) for row in rows]
    assert [(c["latency"], c["speed"], c["clock"]) for c in columns] == [
        ("3.000 ms", "", "CPU time of one thread"),
        ("2.000 ms", "1.50 times faster", "CPU time of one thread"),
        ("5.000 ms", "1.25 times slower", "wall time"),
    ]
    points = front_record(reports)["front"]
    assert [(p["latency_ms"], p["baseline_latency_ms"], p["clock"]) for p in points] == [
        (2.0, 3.0, "cpu"),
        (5.0, 4.0, "wall"),
    ]


def test_points_of_a_front_that_another_one_beats_are_marked():
    def point(accuracy, after_ms, macs):
        made = timed(1.0, after_ms, latency=CPU)
        quantities = {**made.result.quantities, "macs": macs}
        return replace(made, result=replace(made.result, accuracy=accuracy, quantities=quantities))

    points = point(0.9, 0.8, 50), point(0.8, 0.7, 40), point(0.79, 0.75, 45), point(0.9, 0.8, 50)
    assert [p["dominated"] for p in front_record(points)["front"]] == [False, False, True, False]


def test_a_front_without_latency_leaves_it_empty():
    head, rows = front_rows((timed(None, None),))
    assert [row[head.index(name)] for row in rows for name in ("latency", "speed", "clock")] == [""] * 6


@pytest.mark.parametrize(("after_ms", "hint"), [(0.5, False), (1.01, False), (1.5, True)])
def test_the_terminal_hints_at_a_coarser_grid_only_where_the_model_is_slower(after_ms, hint, capsys):
    _show((timed(1.0, after_ms, latency=CPU),), as_json=False)
    shown = capsys.readouterr().out
    assert speed_text(1.0, after_ms) in shown
    assert "CPU time of one thread" in shown
    assert ("Slower than the original" in shown) is hint
