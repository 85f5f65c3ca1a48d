"""A report is pure: the same record gives the same text."""

import json

from bocr_onnx.report import Figures, GroupFigures, Report, figure_rows, markdown


def report(**changes):
    fields = {
        "model": {"path": "m.onnx", "sha256": "0" * 64},
        "output": "s.onnx",
        "target": {"flops": 0.5},
        "baseline": Figures({"macs": 2_000_000, "params": 40_000, "size_bytes": 160_500}, 0.9, 2.0),
        "result": Figures({"macs": 1_000_000, "params": 25_000, "size_bytes": 100_200}, 0.88, 1.0),
        "accuracy_before_finetune": 0.87,
        "metric": "top-1",
        "search": {"strategy": "bocr", "trials": 4, "seed": 1, "seconds": 3.0},
        "proof": {"max_abs_diff": 1e-6, "max_rel_diff": 2e-7, "tolerance": 1e-4, "passed": True},
        "data": {"path": "data", "parts": {"score": {"n_images": 5}, "final": {"n_images": 9}}},
        "refusals": ({"node": "n", "op": "Gemm", "reason": "output", "n_channels": 10, "macs_share": 0.01},),
        "groups": (GroupFigures("g", 16, 9, 0.25),),
    }
    return Report(**(fields | changes))


def test_the_table_says_what_changed():
    rows = {name: rest for name, *rest in figure_rows(report())}
    assert rows["MACs"] == ["2.00 M", "1.00 M", "50.0% kept"]
    assert rows["parameters"] == ["40.00 k", "25.00 k", "62.5% kept"]
    assert rows["file size"] == ["160.50 kB", "100.20 kB", "62.4% kept"]
    assert rows["top-1"] == ["90.00%", "88.00%", "-2.00 points"]
    assert rows["latency, batch 1, wall time"] == ["2.000 ms", "1.000 ms", "2.00 times faster"]


def test_without_data_there_is_no_accuracy():
    plain = report(
        baseline=Figures({"macs": 10, "params": 10, "size_bytes": 10}),
        result=Figures({"macs": 5, "params": 5, "size_bytes": 5}),
        data={},
    )
    assert [row[0] for row in figure_rows(plain)] == ["MACs", "parameters", "file size"]
    assert "Images" not in markdown(plain)


def test_json_is_complete_and_round():
    record = json.loads(report().dumps())
    assert record["result"]["accuracy_before_finetune"] == 0.87
    assert "accuracy_before_finetune" not in record
    assert record["tool"]["name"] == "bocr-onnx"
    assert record["groups"] == [{"name": "g", "n_channels": 16, "n_kept": 9, "share": 0.25, "error": None}]


def test_outputs_have_the_columns_of_their_task() -> None:
    near = {"distortion": 0.25, "correlation": None, "largest_error": 2.0}
    outputs = (
        {"name": "age", **near, "figures": {"agreement": 0.5}},
        {"name": "sex", **near, "figures": {"agreement": 1.0}},
    )
    text = markdown(report(outputs=outputs))
    assert "|  | distortion | correlation | largest error | agreement |\n|---|---|---|---|---|" in text
    assert "| `age` | 0.25 | constant | 2 | 0.5 |\n| `sex` | 0.25 | constant | 2 | 1 |" in text


def test_a_guessed_preprocessing_is_called_a_guess() -> None:
    data = {"path": "data", "parts": {}, "preprocessing": {"name": "cifar10"}}
    assert "cifar10 is a guess" in markdown(report(data=data | {"preprocessing_guessed": True}))
    assert "guess" not in markdown(report(data=data | {"preprocessing_guessed": False}))


def test_markdown_names_groups_whose_channels_nothing_tells_apart():
    search = {"strategy": "uniform", "trials": 0, "seed": 0, "seconds": 0.0, "undecided": ["a", "b"]}
    assert "Nothing tells the channels of a, b apart: the first ones stay." in markdown(report(search=search))
    assert "Nothing tells" not in markdown(report())


def test_markdown_names_groups_refusals_and_misses():
    text = markdown(report(missed=("--flops 0.5: kept 0.51",)))
    assert "| `g` | 9 | 16 | 25.0% |" in text
    assert "- `n` (Gemm): output; 10 channels, 1.0% of MACs" in text
    assert "--flops 0.5: kept 0.51" in text
    assert "score 5, final 9" in text
