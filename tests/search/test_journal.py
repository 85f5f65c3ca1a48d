"""The journal survives being killed."""

import json

import pytest

from bocr_onnx.errors import OutputError, ResumeError
from bocr_onnx.search import Journal, Trial, TrialState


def trial(number, state=TrialState.COMPLETE):
    return Trial(number, (4, 8), state, 0.5, 0.1, 1.0, "here")


def test_trials_come_back(tmp_path):
    path = tmp_path / "j.jsonl"
    journal = Journal(path, {"seed": 1})
    journal.write(trial(0, TrialState.PROPOSED))
    journal.write(trial(0))
    journal.write(trial(1, TrialState.PROPOSED))
    assert Journal(path, {"seed": 1}).trials == (trial(0),)


@pytest.mark.parametrize("keep", range(1, 60, 7))
def test_a_torn_line_loses_only_itself(tmp_path, keep):
    path = tmp_path / "j.jsonl"
    journal = Journal(path, {"seed": 1})
    for number in range(3):
        journal.write(trial(number))
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    path.write_bytes(whole[: last + keep])
    again = Journal(path, {"seed": 1})
    assert again.trials == (trial(0), trial(1))
    again.write(trial(2))
    assert Journal(path, {"seed": 1}).trials == (trial(0), trial(1), trial(2))


@pytest.mark.parametrize("keep", [0, 1, 8, -1])
def test_a_torn_header_loses_nothing(tmp_path, keep):
    path = tmp_path / "j.jsonl"
    Journal(path, {"seed": 1})
    path.write_bytes(path.read_bytes()[:keep])
    again = Journal(path, {"seed": 1})
    assert again.is_new
    again.write(trial(0))
    assert Journal(path, {"seed": 1}).trials == (trial(0),)


def test_another_run_is_refused(tmp_path):
    Journal(tmp_path / "j.jsonl", {"seed": 1, "data": "a"})
    with pytest.raises(ResumeError, match="data is 'a' there and 'b' here"):
        Journal(tmp_path / "j.jsonl", {"seed": 1, "data": "b"})


def test_something_else_is_refused(tmp_path):
    path = tmp_path / "j.jsonl"
    path.write_text("hello\n")
    with pytest.raises(ResumeError, match="one JSON object per line"):
        Journal(path, {"seed": 1})
    assert path.read_text() == "hello\n"


def test_a_trial_of_another_version_is_refused(tmp_path):
    path = tmp_path / "j.jsonl"
    path.write_text(json.dumps({"header": {}}) + "\n" + json.dumps({"widths": [1], "state": "complete", "x": 1}) + "\n")
    with pytest.raises(ResumeError, match="fields of this version"):
        Journal(path, {})


def test_a_folder_that_is_missing(tmp_path):
    with pytest.raises(OutputError, match="must be writable"):
        Journal(tmp_path / "no" / "j.jsonl", {})
