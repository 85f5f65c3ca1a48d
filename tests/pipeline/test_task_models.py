"""Networks of tools/task_models.py, trained for a few steps, keep their own figures without a third of the MACs."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bocr_onnx

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of the exporter

TOOL = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "task_models.py"))
TASKS = {
    "unet": "segmentation",
    "embedding": "embedding",
    "landmarks": "regression",
    "keywords": "classification",
    "two_inputs": "classification",
    "two_heads": "classification",
}


@pytest.mark.parametrize("name", TASKS)
def test_a_third_of_the_work_less_keeps_the_figures(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = TOOL["CASES"][name]
    small = {"train": 128 if name == "unet" else 384, "test": 200}

    def data(part: str) -> dict[str, Any]:
        whole = TOOL["shapes"](small[part], len(part)) if name == "unet" else case.data(part)
        rows = np.random.default_rng(0).permutation(len(whole["labels"]))[: small[part]]
        return {key: array[rows] for key, array in whole.items()}

    monkeypatch.setitem(TOOL["CASES"], name, replace(case, data=data, epochs=2))
    TOOL["train"](name, tmp_path)
    report = bocr_onnx.prune(
        tmp_path / f"{name}.onnx", data=tmp_path / f"{name}.npz", flops=0.66, search="sensitivity", round_to=1,
        history="none", output=tmp_path / "slim.onnx",
    )  # fmt: skip
    assert report.task == TASKS[name]
    assert {o["name"] for o in report.outputs} == set(case.outputs)
    before, after = (TOOL["figures"](name, tmp_path / file, tmp_path) for file in (f"{name}.onnx", "slim.onnx"))
    for figure, value in before.items():
        assert abs(after[figure] - value) < max(0.1 * value, 0.05)
