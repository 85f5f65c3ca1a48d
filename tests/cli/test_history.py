"""bocr-onnx history as a user sees it."""

import json

import pytest

from bocr_onnx.api.history import model_sha256
from bocr_onnx.search.history import History
from tests.search.histories import search, stored, trial

from .test_cli import DEMO, run


@pytest.fixture
def store(history_path):
    found = History(history_path)
    for number in range(2):
        record = search(number, model_sha256=model_sha256(DEMO) if number == 0 else "another")
        found.begin(record)
        for i in range(3):
            found.add(record.key, stored(trial(i)))
    return found


def test_list(store):
    table = run("history", "list")
    assert table.returncode == 0, table.stderr
    assert table.stderr == ""
    assert search(0).key[:12] in table.stdout
    assert "flops 0.5" in table.stdout
    record = json.loads(run("history", "list", "--json").stdout)
    assert record["history"] == str(store.path)
    assert [s["seed"] for s in record["searches"]] == [1, 0]
    assert record["searches"][0]["n_trials"] == 3


def test_list_of_a_file_that_is_missing_is_empty(tmp_path):
    found = run("history", "list", "--json", "--history", tmp_path / "new.sqlite")
    assert json.loads(found.stdout)["searches"] == []


def test_show(store):
    key = search(0).key
    table = run("history", "show", key[:8])
    assert table.returncode == 0, table.stderr
    assert "complete" in table.stdout
    assert key in table.stdout
    record = json.loads(run("history", "show", key[:8], "--json").stdout)
    assert record["key"] == key
    assert [t["widths"] for t in record["trials"]] == [[1, 32], [2, 32], [3, 32]]


def test_export(store, tmp_path):
    printed = run("history", "export")
    assert len(json.loads(printed.stdout)["searches"]) == 2
    assert run("history", "export", "-o", tmp_path / "all.json").stdout == ""
    assert (tmp_path / "all.json").read_text() == printed.stdout
    copied = run("history", "export", "-o", store.path)
    assert copied.returncode == 2
    assert len(store.list()) == 2


def test_forget(store):
    unsaid = run("history", "forget", "--all")
    assert unsaid.returncode == 2
    assert "--yes" in unsaid.stderr
    assert len(store.list()) == 2
    assert run("history", "forget", "--model", DEMO, "--yes").stdout == "forgot 1 search\n"
    assert [row.seed for row in store.list()] == [1]
    assert run("history", "forget", search(1).key[:10], "--yes").stdout == "forgot 1 search\n"
    assert run("history", "forget", "--all", "--yes").stdout == "forgot 0 searches\n"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("show", "zz"), "nearest"),
        (("forget", "zz", "--yes"), "nearest"),
        (("forget", "--yes"), "one of KEY, --model FILE and --all"),
        (("forget", "zz", "--all"), "one of KEY, --model FILE and --all"),
        (("list", "--history", "none"), "must name a file"),
        (("list", "--history", __file__), "file is not a database"),
        (("forget", "--model", "missing.onnx", "--yes"), "missing.onnx"),
    ],
)
def test_errors_are_clear_and_exit_with_two(store, args, said):
    found = run("history", *args)
    assert found.returncode == 2
    assert found.stdout == ""
    assert said in found.stderr
    assert "Traceback" not in found.stderr
    assert len(store.list()) == 2
