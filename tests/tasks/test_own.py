"""Tasks of a user's own: imported when named, asked for samples, scores and a loss, and blamed for what they raise."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import bocr_onnx
from bocr_onnx.errors import DataError, TaskError, UsageError
from bocr_onnx.tasks import find_task
from bocr_onnx.tasks.own import load_own
from tests.oracle import build, proto

QUICK = {"flops": 0.7, "search": "sensitivity", "round_to": 1, "history": "none"}
NET = """m (float[N, 1, 8, 8] x) => (float[N, 4, 8, 8] heat) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w0)  ar = Relu(a)  heat = Conv(ar, v) }"""

DOCS = Path(__file__).parents[2] / "docs" / "own_tasks.md"
EXAMPLE = DOCS.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
"""The class that the docs show."""

POSE = (
    EXAMPLE
    + """
class Broken(Pose):
    def score(self, outputs, labels):
        return {}["nothing"]

class TooLarge(Pose):
    def score(self, outputs, labels):
        return 37

class Odd(Pose):
    def samples(self, source):
        return 5

class Ragged(Pose):
    def samples(self, source):
        return np.zeros((3, 1, 8, 8)), np.zeros(4)

class Elsewhere(Pose):
    outputs = ("heet",)

class Mute:
    metric = "PCK"

class Fussy(Pose):
    def __init__(self):
        raise RuntimeError("no licence")

class Plain:
    metric = "share"
    def score(self, outputs, labels):
        return 1.0
"""
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the user's module, a model, and data with labels and without."""
    (tmp_path / "spots.py").write_text(POSE)
    (tmp_path / "worse.py").write_text("1 / 0\n")
    (tmp_path / "needy.py").write_text("import nothing_like_this\n")
    onnx.save(proto(NET, w0=(12, 1, 3, 3), v=(4, 12, 1, 1)), tmp_path / "m.onnx")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((120, 1, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "data.npz", pictures=x, points=rng.integers(0, 8, (120, 2)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(tmp_path)])
    for name in ("spots", "worse", "needy"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    load_own.cache_clear()
    return tmp_path


def test_a_class_of_the_user_reads_scores_and_trains(place: Path) -> None:
    report = bocr_onnx.prune("m.onnx", data="data.npz", task="spots:Pose", output="slim.onnx", **QUICK)
    assert report.task == "spots:Pose"
    assert report.metric == "PCK"
    assert {o["name"] for o in report.outputs} == {"heat"}
    scored = bocr_onnx.evaluate("m.onnx", data="data.npz", task="spots:Pose")
    assert scored.metric == "PCK"
    assert 0 < scored.score.value < 0.3
    options = {"data": "data.npz", "task": "spots:Pose", "label_weight": 1.0, "epochs": 12, "batch_size": 12}
    trained = bocr_onnx.finetune("slim.onnx", "m.onnx", **options, learning_rate=0.02, output="tuned.onnx")
    losses = [e["loss"] for e in trained.finetune["history"]]
    assert losses[1] > 3.5  # cross-entropy of 64 cells; the distance from the original is far below 1
    assert losses[-1] < 0.97 * losses[1]


def test_without_labels_it_says_how_far_the_original_is(place: Path) -> None:
    text = POSE.replace('held["pictures"], held["points"]', 'held["pictures"], None')
    (place / "spots.py").write_text(text)
    report = bocr_onnx.prune("m.onnx", data="data.npz", task="spots:Pose", output="slim.onnx", **QUICK)
    assert report.metric == "PCK with the original"
    assert report.baseline.accuracy == 1.0
    assert 0.3 < report.result.accuracy < 1.0
    np.savez("images.npz", images=np.load("data.npz")["pictures"])
    report = bocr_onnx.prune("m.onnx", data="images.npz", task="spots:Plain", output="plain.onnx", **QUICK)
    assert report.metric == "fidelity"
    assert 0.5 < report.result.accuracy < 1.0


def test_a_task_travels_by_its_name(place: Path) -> None:
    task = find_task(build(NET, w0=(12, 1, 3, 3), v=(4, 12, 1, 1)), "spots:Pose")
    assert pickle.loads(pickle.dumps(task)).name == "spots:Pose"
    assert len(pickle.dumps(task)) < 1000


@pytest.mark.parametrize(
    ("task", "kind", "words"),
    [
        ("spots:Pase", UsageError, r"must name a class of spots, got none with this name"),
        ("spuds:Pose", UsageError, r"must name a module that can be imported, got no 'spuds'"),
        ("spots:Mute", UsageError, r"must have a method 'score' and a text 'metric', got a Mute without"),
        ("spots/Pose", UsageError, r"`task` must be auto, .* or module:Name, got 'spots/Pose'"),
        ("spots:Elsewhere", DataError, r"must name tensors of m.onnx, got 'heet'"),
        ("spots:Broken", TaskError, r"raised KeyError; its own traceback:"),
        ("spots:Fussy", TaskError, r"raised RuntimeError; its own traceback:"),
        ("worse:Pose", TaskError, r"raised ZeroDivisionError; its own traceback:"),
        ("needy:Pose", TaskError, r"raised ModuleNotFoundError; its own traceback:"),
        ("spots:TooLarge", TaskError, r"'score' of `task=spots:TooLarge` must return a number in \[0, 1\], got 37"),
        ("spots:Odd", TaskError, r"'samples' of `task=spots:Odd` must return inputs and labels, got int"),
        ("spots:Ragged", TaskError, r"must return a row per sample, got \[3, 4\] rows"),
    ],
)  # fmt: skip
def test_what_a_class_of_the_user_does_wrong_is_said(place: Path, task: str, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        bocr_onnx.prune("m.onnx", data="data.npz", task=task, output="slim.onnx", **QUICK)
    assert not (place / "slim.onnx").exists()
    hint = str(caught.value.hint)
    if task == "spots:Broken":
        assert 'return {}["nothing"]' in hint
        assert "own.py" not in hint
        assert hint.endswith("KeyError: 'nothing'")
    if task == "spots:Pase":
        assert "Pose" in hint


def test_nothing_is_imported_that_nobody_named(place: Path) -> None:
    with pytest.raises(UsageError):
        bocr_onnx.prune("m.onnx", data="data.npz", task="worse", output="slim.onnx", **QUICK)
    assert "worse" not in sys.modules
