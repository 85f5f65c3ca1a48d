"""A plan on the file it was made for, on the same network with other weights, and on another one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import bocr_onnx
from bocr_onnx.errors import PlanError
from bocr_onnx.graph import load
from bocr_onnx.groups import build_index
from bocr_onnx.progress import Silent
from bocr_onnx.slimming import Plan, write_plan
from tests.oracle import proto

TEXT = """m (float[N, 3, 8, 8] x) => (float[N, 5] y) {
    c = Conv <pads = [1, 1, 1, 1]> (x, W, wb)
    r = Relu(c)
    d = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (r, U)
    p = GlobalAveragePool(d)
    f = Reshape(p, T)
    y = Gemm(f, G)
}"""
CONSTANTS: dict[str, Any] = {"W": (8, 3, 3, 3), "wb": (8,), "U": (6, 8, 3, 3), "T": [0, -1], "G": (6, 5)}
KEPT = (0, 3, 7)


class Noted(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def saved(folder: Path, text: str = TEXT, **changes: Any) -> Path:
    onnx.save(proto(text, **{**CONSTANTS, **changes}), folder / "other.onnx")
    return folder / "other.onnx"


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    onnx.save(proto(TEXT, **CONSTANTS), tmp_path / "m.onnx")
    graph = load(tmp_path / "m.onnx")
    index = build_index(graph)
    write_plan(tmp_path / "plan.json", index, Plan((KEPT, (1, 5))))
    return tmp_path / "plan.json"


def stored(path: Path) -> dict[str, Any]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def test_the_file_it_was_made_for(plan: Path, tmp_path: Path) -> None:
    shown = Noted()
    applied = bocr_onnx.apply(tmp_path / "m.onnx", plan, tmp_path / "slim.onnx", strict=True, progress=shown)
    assert applied.same_model
    assert applied.as_json()["same_model"] is True
    assert shown.notes == []


def test_a_stamped_file(plan: Path, tmp_path: Path) -> None:
    model = onnx.load(tmp_path / "m.onnx")
    model.doc_string = "build 4711"
    onnx.save(model, tmp_path / "stamped.onnx")
    applied = bocr_onnx.apply(tmp_path / "stamped.onnx", plan, tmp_path / "t.onnx")
    bocr_onnx.apply(tmp_path / "m.onnx", plan, tmp_path / "s.onnx")
    assert not applied.same_model
    assert applied.proof.passed
    stamped, plain = onnx.load(tmp_path / "t.onnx"), onnx.load(tmp_path / "s.onnx")
    assert stamped.graph == plain.graph


def test_other_weights_are_the_ones_that_are_cut(plan: Path, tmp_path: Path) -> None:
    other, shown = saved(tmp_path, seed=1), Noted()
    applied = bocr_onnx.apply(other, plan, tmp_path / "slim.onnx", progress=shown)
    assert applied.proof.passed
    assert applied.as_json()["same_model"] is False
    (note,) = shown.notes
    assert note.startswith("warning: the plan was made for another file of the same network")
    assert load(tmp_path / "m.onnx").sha256[:12] + "..., this file " + load(other).sha256[:12] in note
    slim, whole, old = stored(tmp_path / "slim.onnx"), stored(other), stored(tmp_path / "m.onnx")
    assert np.array_equal(slim["W"], whole["W"][list(KEPT)])
    assert np.array_equal(slim["G"], whole["G"][[1, 5]])
    assert not np.array_equal(slim["W"], old["W"][list(KEPT)])


OTHERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "weights": (TEXT, {"seed": 1}, ""),
    "width": (TEXT, {"W": (9, 3, 3, 3), "wb": (9,), "U": (6, 9, 3, 3)}, "group.*'Conv_0' of 9 channels"),
    "stride": (TEXT.replace("strides = [2, 2]", "strides = [1, 1]"), {}, "other operators or attributes"),
    "Reshape target": (TEXT, {"T": [-1, 6]}, "other operators or attributes"),
}


@pytest.mark.parametrize("case", [c for c in OTHERS if OTHERS[c][2]])
def test_another_network_is_refused(case: str, plan: Path, tmp_path: Path) -> None:
    text, changes, message = OTHERS[case]
    with pytest.raises(PlanError, match=message):
        bocr_onnx.apply(saved(tmp_path, text, **changes), plan, tmp_path / "slim.onnx")
    assert not (tmp_path / "slim.onnx").exists()


@pytest.mark.parametrize("case", OTHERS)
def test_strict_refuses_every_other_file(case: str, plan: Path, tmp_path: Path) -> None:
    text, changes, _ = OTHERS[case]
    with pytest.raises(PlanError, match="must belong to"):
        bocr_onnx.apply(saved(tmp_path, text, **changes), plan, tmp_path / "slim.onnx", strict=True)
    assert not (tmp_path / "slim.onnx").exists()


def test_the_command_line_warns_and_strict_refuses(plan: Path, tmp_path: Path) -> None:
    def run(*args: object) -> subprocess.CompletedProcess[str]:
        code = "from bocr_onnx.cli.main import run; run()"
        command = [sys.executable, "-c", code, "apply", str(saved(tmp_path, seed=1)), str(plan), *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    done = run("-o", tmp_path / "slim.onnx", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["same_model"] is False
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.strip().startswith("warning: the plan was made for another file")
    refused = run("-o", tmp_path / "none.onnx", "--strict")
    assert refused.returncode == 2
    assert "must belong to" in refused.stderr
    assert not (tmp_path / "none.onnx").exists()
