"""Several budgets from one search, and what one search leaves for the next."""

import json
import re
from pathlib import Path

import pytest

import bocr_onnx
from bocr_onnx.api.history import open_history
from bocr_onnx.errors import HistoryError, ResumeError, UsageError
from bocr_onnx.options import PruneOptions
from bocr_onnx.pipeline.rundir import RunDir

from .test_prune import DEMO, DIGITS, QUICK

pytestmark = pytest.mark.slow

BUDGETS = (0.7, 0.3, 0.5)


def options(folder, **given):
    asked = {"flops": BUDGETS, "data": DIGITS, "preset": "digits", "output": folder / "slim.onnx", "trials": 12}
    return {"score_images": 200, "recovery_images": 120} | asked | given


@pytest.fixture(scope="module")
def front(tmp_path_factory):
    folder = tmp_path_factory.mktemp("front")
    return folder, bocr_onnx.prune_each(DEMO, **options(folder, history=str(folder / "history.sqlite")))


def test_one_model_for_each_budget_the_most_generous_first(front):
    folder, reports = front
    assert [r.target for r in reports] == [{"flops": 0.7}, {"flops": 0.5}, {"flops": 0.3}]
    for report, share in zip(reports, (0.7, 0.5, 0.3), strict=True):
        assert report.output == str(folder / f"slim_flops{share:g}.onnx")
        assert report.result.macs <= share * report.baseline.macs
        assert report.proof["passed"]
        assert report.search["trials"] == 4


def test_the_front_is_written(front):
    folder, reports = front
    record = json.loads((folder / "slim.run" / "front.json").read_text())
    assert [p["target"]["flops"] for p in record["front"]] == [0.7, 0.5, 0.3]
    assert record["front"][0]["accuracy"] == reports[0].result.accuracy
    assert record["baseline"]["macs"] == reports[0].baseline.macs


def test_later_budgets_know_the_trials_of_earlier_ones(front):
    folder, _ = front
    known = [
        len(json.loads((folder / "slim.run" / f"flops{s}" / "past.json").read_text())["past"]["same"]) for s in BUDGETS
    ]
    assert known == [0, 8, 4]
    origins = [
        json.loads(line)["origin"]
        for line in (folder / "slim.run" / "flops0.5" / "journal.jsonl").read_text().splitlines()[1:]
    ]
    assert "history" in origins


def test_a_front_resumes(front, tmp_path):
    folder, reports = front
    again = bocr_onnx.prune_each(DEMO, **options(folder), resume=folder / "slim.run")
    assert [r.groups for r in again] == [r.groups for r in reports]


def test_the_history_holds_all_trials_once(front):
    folder, _ = front
    store = open_history(str(folder / "history.sqlite"))
    bocr_onnx.prune_each(DEMO, **options(folder, history=folder / "history.sqlite"), run_dir=folder / "slim.run")
    assert [row.n_trials for row in store.list()] == [4, 4, 4]


def test_a_new_budget_begins_with_what_history_knows(front, tmp_path):
    folder, _ = front
    new = options(tmp_path, flops=(0.4,), trials=3, history=str(folder / "history.sqlite"))
    bocr_onnx.prune_each(DEMO, **new)
    past = json.loads((tmp_path / "slim.run" / "past.json").read_text())
    assert len(past["past"]["same"]) >= 8
    trials = [json.loads(line) for line in (tmp_path / "slim.run" / "journal.jsonl").read_text().splitlines()[1:]]
    assert any(t["origin"].startswith("phase") or t["origin"] == "history" for t in trials)


def test_transfer_needs_another_model(tmp_path):
    with pytest.raises(UsageError, match="must find a search of another model"):
        bocr_onnx.prune(
            DEMO, flops=0.5, data=DIGITS, search="amc", transfer="plain", trials=8,
            output=tmp_path / "s.onnx",
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_a_wrong_history_is_told_before_anything_is_measured(tmp_path):
    (tmp_path / "h.sqlite").write_text("not a database, but long enough to look like a file " * 20)
    with pytest.raises(HistoryError, match=r"h\.sqlite"):
        bocr_onnx.prune_each(DEMO, **options(tmp_path, history=str(tmp_path / "h.sqlite")))
    assert [p.name for p in tmp_path.iterdir()] == ["h.sqlite"]


def test_without_history_nothing_is_kept(tmp_path, history_path):
    bocr_onnx.prune(DEMO, flops=0.5, data=DIGITS, output=tmp_path / "s.onnx", history="none", **QUICK)
    assert not history_path.exists()


def test_a_run_directory_has_one_run_at_a_time(tmp_path):
    run = RunDir(tmp_path / "slim.run")
    run.create(PruneOptions(DEMO, **options(tmp_path)))
    before = run.options.read_bytes()
    with run.alone(), pytest.raises(ResumeError, match="by one run at a time"):
        bocr_onnx.prune_each(DEMO, **options(tmp_path, flops=(0.5,), seed=9))
    assert run.options.read_bytes() == before
    assert len(bocr_onnx.prune_each(DEMO, **options(tmp_path, flops=(0.5,), trials=2))) == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"flops": (0.5, 0.5)}, "budgets must differ"),
        ({"flops": (0.5, 0.4), "params": (0.5, 0.4, 0.3)}, "`flops` must hold one share or 3, got 2"),
        ({"trials": 5}, "`trials` must be at least 6 for `search=bocr`"),
        (
            {"search": "bocr", "transfer": "plain"},
            "`transfer` must be given with `search=amc`",
        ),
        ({"search": "amc", "assistant": "maybe"}, "`assistant` must be off or on"),
        ({"history": ""}, "`history` must name a file"),
        ({"workers": 0}, "`workers` must be at least 1"),
        ({"workers": 1000}, "`workers` must be at most 256"),
    ],
)
def test_wrong_options_are_told(given, words, tmp_path):
    with pytest.raises(UsageError, match=words):
        bocr_onnx.prune_each(DEMO, **options(tmp_path, **given))
    assert not list(tmp_path.iterdir())


def test_bounds_of_one_model_go_together():
    asked = PruneOptions(DEMO, flops=(0.7, 0.5), size=(0.8,))
    assert list(asked.budgets) == [{"flops": 0.7, "size": 0.8}, {"flops": 0.5, "size": 0.8}]


def test_other_preprocessing_is_another_search(tmp_path):
    preset = (Path(DEMO).parent / "presets" / "digits.toml").read_text()
    (tmp_path / "other.toml").write_text(re.sub(r"std = \[.*\]", "std = [1.1]", preset))
    given = {"flops": (0.5,), "trials": 2, "recover": "oneshot", "history": str(tmp_path / "h.sqlite")}
    bocr_onnx.prune_each(DEMO, **options(tmp_path, **given))
    bocr_onnx.prune_each(DEMO, **options(tmp_path, **given, preset=None, preprocess=tmp_path / "other.toml"))
    assert len(open_history(given["history"]).list()) == 2
    assert json.loads((tmp_path / "slim.run" / "past.json").read_text())["past"]["same"] == []


def test_what_another_search_knew_is_not_taken_over(tmp_path):
    given = {"flops": (0.5,), "trials": 2, "recover": "oneshot", "history": "none"}
    bocr_onnx.prune_each(DEMO, **options(tmp_path, **given))
    past = tmp_path / "slim.run" / "past.json"
    stale = json.loads(past.read_text()) | {"key": "another"}
    stale["past"]["same"] = [{"number": 0, "widths": [1], "state": "complete", "score": 1.0, "objective": 9.0}]
    past.write_text(json.dumps(stale))
    bocr_onnx.prune_each(DEMO, **options(tmp_path, **given))
    assert json.loads(past.read_text())["past"]["same"] == []
    past.write_text("{}")
    with pytest.raises(ResumeError, match="past"):
        bocr_onnx.prune_each(DEMO, **options(tmp_path, **given))


def test_a_front_without_images_is_written_too(tmp_path):
    asked = options(tmp_path, flops=(0.7, 0.5), search="uniform", data=None, preset=None)
    bocr_onnx.prune_each(DEMO, **asked)
    record = json.loads((tmp_path / "slim.run" / "front.json").read_text())
    assert [p["accuracy"] for p in record["front"]] == [None, None]


@pytest.mark.parametrize(
    "name", ["out.onnx", "slim.run/past.json", "slim.run/flops0.7/journal.jsonl", "slim.run/run.json"]
)
def test_the_history_is_never_written_over(name, tmp_path):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    store = open_history(str(tmp_path / name))
    assert store.list() == ()
    before = (tmp_path / name).read_bytes()
    flops = (0.7, 0.5) if "flops" in name or "run.json" in name else (0.5,)
    output = tmp_path / ("out.onnx" if name == "out.onnx" else "slim.onnx")
    with pytest.raises(UsageError, match="must not be a file that is read"):
        bocr_onnx.prune_each(DEMO, **options(tmp_path, flops=flops, output=output, history=str(tmp_path / name)))
    assert (tmp_path / name).read_bytes() == before


def test_outputs_of_several_budgets_stay_off_the_run_directory(tmp_path):
    with pytest.raises(UsageError, match="must be one file, got it twice"):
        bocr_onnx.prune_each(DEMO, **options(tmp_path), run_dir=tmp_path / "slim_flops0.5.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        {"number": -1},
        {"objective": None},
        {"score": None},
        {"score": 5.0},
        {"objective": 1e400},
        {"state": "stopped", "first": None},
        {"widths": [3]},
    ],
)
def test_an_edited_journal_is_refused(change, tmp_path):
    asked = options(tmp_path, flops=(0.5,), trials=3, recover="oneshot", history="none")
    bocr_onnx.prune_each(DEMO, **asked)
    journal = tmp_path / "slim.run" / "journal.jsonl"
    lines = journal.read_text().splitlines()
    lines[-1] = json.dumps(json.loads(lines[-1]) | change).replace("Infinity", "1e400")
    journal.write_text("\n".join(lines) + "\n")
    with pytest.raises(ResumeError, match="journal"):
        bocr_onnx.prune_each(DEMO, **asked, resume=tmp_path / "slim.run")


@pytest.mark.parametrize(
    ("given", "words"),
    [({"seed": 2**64}, "`seed` must be at most"), ({"round_to": 10**23}, "`round_to` must be auto or at most")],
)
def test_numbers_have_an_upper_end(given, words, tmp_path):
    with pytest.raises(UsageError, match=words):
        bocr_onnx.prune_each(DEMO, **options(tmp_path, **given))
