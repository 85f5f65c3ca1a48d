"""The history comes back as it was written, whoever else writes to it and however a run ends."""

import io
import json
import os
import signal
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from bocr_onnx.api.history import model_sha256, open_history
from bocr_onnx.errors import HistoryError, ModelError, OutputError, UsageError
from bocr_onnx.search import Trial, TrialState
from bocr_onnx.search.features import group_features, published_features
from bocr_onnx.search.history import SCHEMA, History, default_history, search_key, store_trial
from bocr_onnx.search.prior import FEATURES, PUBLISHED
from tests.search.histories import QUANTITIES, search, stored, trial, writer
from tests.search.problems import problem


def fill(store, record, n=12, **of_trials):
    store.begin(record)
    for number in range(n):
        store.add(record.key, stored(trial(number, **of_trials)))
    return record


def same(store, record, without=""):
    groups = record.group_names, record.full
    return store.same(record.model_sha256, record.data_digest, record.recover, *groups, without=without)


def execute(path, query, *values):
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(query, values).fetchall()


def check_sound(path):
    assert execute(path, "PRAGMA integrity_check") == [("ok",)]


@pytest.fixture
def store(tmp_path):
    return History(tmp_path / "made" / "on the way" / "h.sqlite")


def test_a_search_and_its_trials_come_back(store):
    record = fill(store, search(), 2)
    store.add(record.key, stored(trial(2, state=TrialState.STOPPED)))
    found = store.show(record.key[:6])
    assert found.record == record
    assert [t.trial for t in found.trials] == [trial(0), trial(1), trial(2, state=TrialState.STOPPED)]
    assert [(t.use, dict(t.quantities)) for t in found.trials] == [(0.98, QUANTITIES)] * 3
    assert execute(store.path, "PRAGMA journal_mode") == [("wal",)]


def test_the_same_again_is_not_doubled(store):
    fill(store, search(), 3)
    fill(store, search(), 2, objective=7.0)
    store.begin(search(grid=4))
    found = store.show(search().key)
    assert found.record.grid == 4
    assert [t.trial.objective for t in found.trials] == [7.0, 7.0, trial(2).objective]
    assert len(store.list()) == 1


@pytest.mark.parametrize("state", [TrialState.PROPOSED, TrialState.INFEASIBLE, TrialState.FAILED])
def test_a_trial_that_was_not_scored_is_left_out(store, state):
    store.begin(search())
    store.add(search().key, stored(replace(trial(), state=state)))
    store.add(search().key, stored(trial(objective=float("nan"))))
    assert store.show(search().key).trials == ()


def test_a_search_that_is_forgotten_meanwhile_stays_so(store):
    record = fill(store, search(), 1)
    assert store.forget(everything=True) == 1
    store.add(record.key, stored(trial(1)))
    assert execute(store.path, "SELECT * FROM trials") == []


def test_same_is_the_same_function_whatever_the_budget(store):
    late = fill(store, search(2, budget={"params": 0.3, "size": 0.2}, strategy="random", grid=1), 4, objective=9.0)
    early = fill(store, search(1), 3)
    store.add(early.key, stored(trial(3, state=TrialState.STOPPED)))
    now = fill(store, search(3), 2)
    found = same(store, now, without=now.key)
    assert [t.number for t in found] == [0, 1, 2, 3]
    assert [t.objective for t in found] == [*(trial(i).objective for i in range(3)), 9.0]
    assert found[3].widths == trial(3).widths
    assert same(store, now, without=late.key)[-1].widths == trial(2).widths


@pytest.mark.parametrize(
    "change",
    [
        {"model_sha256": "bb"},
        {"data_digest": "other"},
        {"recover": "none"},
        {"group_names": ("stem", "other")},
        {"full": (16, 64)},
    ],
)
def test_same_is_of_nothing_else(store, change):
    fill(store, search(1, **change))
    assert same(store, search()) == ()


def test_others_are_the_newest_of_every_other_model(store):
    fill(store, search(0))
    for number in range(1, 8):
        fill(
            store, search(number, model_sha256=f"{number:064x}", model=f"m{number}", budget={"flops": 0.6, "size": 0.4})
        )
    fill(store, search(8, model_sha256=f"{7:064x}", model="m7 again"))
    fill(store, search(9, model_sha256="few"), 9)
    fill(store, search(10, model_sha256="old", published=((1.0,), (1.0,))))
    found = store.others(search().model_sha256)
    assert [p.model for p in found] == ["m7 again", "m6", "m5", "m4", "m3"]
    assert [p.budget for p in found] == [0.5, 0.4, 0.4, 0.4, 0.4]
    assert len(found[0].ratios) == len(found[0].rewards) == 12
    assert found[0].ratios[3] == (4 / 16, 1.0)
    assert (found[0].features, found[0].published, found[0].allocation) == (
        search().features,
        search().published,
        search().allocation,
    )
    assert len(store.others(search().model_sha256, limit=2)) == 2


def test_features_have_the_columns_of_this_version():
    asked = problem()
    assert group_features(asked).shape[1] == len(FEATURES)
    assert published_features(asked).shape[1] == len(PUBLISHED)


def test_the_cost_of_a_trial():
    asked = problem()
    full = store_trial(asked.projection, Trial(0, tuple(int(n) for n in asked.space.full), TrialState.COMPLETE))
    assert full.use == pytest.approx(2.0)
    cost = asked.projection.cost.cost(asked.space.full)
    assert full.quantities == {"macs": cost.macs, "params": cost.params, "size_bytes": cost.size_bytes}


def test_a_line_names_the_best(store):
    fill(store, search(0), 3)
    store.begin(search(1, seed=10**30))
    newest, oldest = store.list()
    assert (newest.n_trials, newest.best_score, newest.best_objective, newest.seed) == (0, None, None, 10**30)
    assert (oldest.n_trials, oldest.best_score, oldest.best_objective) == (3, 0.5, trial(2).objective)
    assert search().key.startswith(oldest.key)


def test_export_and_forget(store, tmp_path):
    for number, sha in enumerate(("one", "two", "two")):
        fill(store, search(number, model_sha256=sha), 2)
    stream = io.StringIO()
    assert store.export(stream) == store.export(tmp_path / "all.json") == 3
    record = json.loads(stream.getvalue())
    assert record == json.loads((tmp_path / "all.json").read_text())
    assert record["schema"] == 1
    assert [s["model_sha256"] for s in record["searches"]] == ["one", "two", "two"]
    assert record["searches"][0]["trials"][1]["widths"] == [2, 32]
    with pytest.raises(OutputError, match="must not be the history itself"):
        store.export(store.path)
    assert store.forget(model_sha256="two") == 2
    assert store.forget(search(0).key[:8]) == 1
    assert execute(store.path, "SELECT count(*) FROM trials") == [(0,)]
    with pytest.raises(UsageError, match="one of a key, a model and everything"):
        store.forget()


def test_a_key_must_be_of_one_search(store):
    with pytest.raises(UsageError, match="The history is empty"):
        store.show("ab")
    keys = ["abc" + "0" * 61, "abd" + "0" * 61]
    for key in keys:
        store.begin(replace(search(), key=key))
    with pytest.raises(UsageError, match=r"'AB' is ambiguous: 2 searches start with it\n.*abd0"):
        store.show("AB")
    with pytest.raises(UsageError, match=r"has the key 'abe'\n.*nearest: .*abc0"):
        store.show("abe")
    with pytest.raises(UsageError, match="has the key ''"):
        store.forget("")
    assert store.show("abd").record.key == keys[1]


def test_a_key_is_of_the_header_not_of_its_order():
    assert search_key({"a": 1, "b": [2]}) == search_key({"b": [2], "a": 1}) != search_key({"a": 1, "b": [3]})


def test_two_processes_write_at_once(tmp_path):
    path = tmp_path / "h.sqlite"
    both = [writer(path, number, 200) for number in range(2)]
    for process in both:
        assert process.stdout.readline() == "begun\n"
    outputs = [_go(process) for process in both] and [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert [len(output.split()) for output in outputs] == [200, 200]
    for number in range(2):
        assert [t.trial for t in History(path).show(search(number).key).trials] == [trial(i) for i in range(200)]
    check_sound(path)


def test_processes_that_make_the_file_at_once(tmp_path):
    path = tmp_path / "h.sqlite"
    many = [writer(path, number, 1) for number in range(4)]
    for process in many:
        process.communicate("\n", timeout=120)
    assert [process.returncode for process in many] == [0] * 4
    assert len(History(path).list()) == 4


@pytest.mark.parametrize("after", [1, 17, 60])
def test_a_killed_process_leaves_whole_trials(tmp_path, after):
    path = tmp_path / "h.sqlite"
    process = writer(path, 0, 0)
    process.stdout.readline()
    _go(process)
    for _ in range(after):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    check_sound(path)
    found = [t.trial for t in History(path).show(search().key).trials]
    assert len(found) >= after
    assert found == [trial(i) for i in range(len(found))]


def _go(process):
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.parametrize("content", [b"hello, this is not a database at all\n" * 40, b"\x00" * 4096])
def test_something_else_is_refused_and_not_changed(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(HistoryError, match=r"got: file is not a database\n.*`history=none`"):
        History(path).begin(search())
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("pragma", ["user_version = 3", "application_id = 77", "user_version = 0"])
def test_another_database_is_refused_and_not_changed(tmp_path, pragma):
    path = tmp_path / "theirs.sqlite"
    execute(path, "CREATE TABLE songs (name TEXT)")
    execute(path, f"PRAGMA {pragma}")
    content = path.read_bytes()
    with pytest.raises(HistoryError, match="got another database"):
        History(path).list()
    assert path.read_bytes() == content


@pytest.mark.parametrize("schema", [SCHEMA + 1, 0])
def test_another_schema_is_refused(store, schema):
    store.list()
    execute(store.path, f"PRAGMA user_version = {schema}")
    with pytest.raises(HistoryError, match=f"must be of schema {SCHEMA}, got {schema}"):
        store.list()


def test_a_file_of_the_first_version_is_read_and_brought_to_this_one(tmp_path):
    """Written by bocr-onnx 0.1.0: a column for each quantity."""
    path = tmp_path / "h.sqlite"
    text = (Path(__file__).parent / "history_schema_1.sql").read_text()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"{text} PRAGMA application_id = {int.from_bytes(b'BOCR')}; PRAGMA user_version = 1;")
        before = connection.execute(
            "SELECT number, widths, use, macs, params, size_bytes, objective FROM trials"
        ).fetchall()
        connection.execute("UPDATE trials SET macs = 'many' WHERE number = 3")
        connection.commit()
    store = History(path)
    (line,) = store.list()
    assert (line.model, line.n_trials) == ("demo.onnx", len(before))
    with pytest.raises(HistoryError, match="a damaged one of search"):
        store.show(line.key)
    execute(path, "DELETE FROM trials WHERE number = 3")
    found = [
        (
            t.trial.number,
            json.dumps(list(t.trial.widths)).replace(" ", ""),
            t.use,
            *t.quantities.values(),
            t.trial.objective,
        )
        for t in store.show(line.key).trials
    ]
    assert found == before[:3]
    assert list(store.show(line.key).trials[0].quantities) == ["macs", "params", "size_bytes"]
    assert execute(path, "PRAGMA user_version") == execute(path, "SELECT schema FROM meta") == [(SCHEMA,)]
    store.add(store.show(line.key).record.key, stored(trial(4, widths=(32, 32, 64, 64, 64, 16, 64))))
    assert store.list()[0].n_trials == 4


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "h.sqlite", tmp_path, Path("/proc/h.sqlite")):
        with pytest.raises(HistoryError, match="`history=none`"):
            History(path).begin(search())


def test_a_damaged_page(store):
    fill(store, search(), 300)
    with store.path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (store.path.stat().st_size - 4096))
    for ask in (store.list, lambda: store.begin(search(1)), lambda: same(store, search())):
        with pytest.raises(HistoryError, match="must be a usable file"):
            ask()


@pytest.mark.parametrize(
    "change",
    [
        "full = '[16'",
        "full = '[16, 32, 64]'",
        "full = '[16, 0]'",
        "features = '[[1], \"x\"]'",
        "allocation = '[NaN, 1]'",
        "budget = '[0.5]'",
        "seed = 'x'",
        "group_names = '[1, 2]'",
        "recover = x'00ff'",
    ],
)
def test_a_damaged_search_is_named_or_left_out(store, change):
    fill(store, search(0))
    fill(store, search(1, model_sha256="sound"))
    execute(store.path, f"UPDATE searches SET {change} WHERE key = ?", search().key)
    for ask in (lambda: store.show(search().key), lambda: store.export(io.StringIO())):
        with pytest.raises(HistoryError, match=rf"search {search().key[:12]}.*\n.*history forget {search().key[:12]}"):
            ask()
    assert [p.model for p in store.others("mine")] == ["net.onnx"]
    assert store.forget(search().key) == 1
    assert len(store.list()) == 1


@pytest.mark.parametrize(
    "change",
    [
        "widths = '[1]'",
        "widths = '[1, 33]'",
        "widths = '[1, 0]'",
        "widths = '[1, true]'",
        "widths = 'x'",
        "widths = x'00'",
        "objective = 'x'",
        "objective = NULL",
        "objective = 9e999",
        "score = 'x'",
        "use = 9e999",
        "quantities = '[1]'",
        "number = -1",
    ],
)
def test_a_damaged_trial_is_named_or_left_out(store, change):
    fill(store, search(0))
    execute(store.path, f"UPDATE trials SET {change} WHERE number = 3")
    with pytest.raises(HistoryError, match=f"damaged one of search {search().key[:12]}"):
        store.show(search().key)
    assert [t.widths for t in same(store, search())] == [trial(i).widths for i in range(12) if i != 3]
    assert len(store.others("mine")[0].rewards) == 11


def test_an_unknown_state_is_damage(store):
    fill(store, search(0), 1)
    execute(store.path, "UPDATE trials SET state = 'lost'")
    with pytest.raises(HistoryError, match="damaged one"):
        store.show(search().key)


def test_a_file_name_that_is_not_unicode(store):
    store.begin(search(model=os.fsdecode(b"net\xff.onnx")))
    assert store.list()[0].model == "net?.onnx"


def test_which_file_it_is(history_path, monkeypatch, tmp_path):
    assert default_history() == history_path == open_history(None).path
    assert open_history("none") is None
    assert open_history(str(tmp_path / "x")).path == tmp_path / "x"
    with pytest.raises(UsageError, match="empty name"):
        open_history("")
    monkeypatch.setenv("BOCR_ONNX_HISTORY", "none")
    assert open_history(None) is None
    monkeypatch.delenv("BOCR_ONNX_HISTORY")
    assert default_history().parts[-2:] == ("bocr-onnx", "history.sqlite")
    assert not history_path.exists()


def test_the_digest_of_a_model_that_is_missing(tmp_path):
    with pytest.raises(ModelError, match="got no such file"):
        model_sha256(tmp_path / "missing.onnx")
