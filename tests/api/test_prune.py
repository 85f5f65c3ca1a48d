"""The whole road on the demo model, and what it does with bad input."""

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import bocr_onnx
from bocr_onnx.errors import (
    BocrError,
    BudgetError,
    DataError,
    HistoryError,
    ModelError,
    OutputError,
    PlanError,
    ResumeError,
    TrainingError,
    UsageError,
)
from bocr_onnx.options import PruneOptions, options_of
from bocr_onnx.progress import Silent
from tests.oracle import proto

pytestmark = pytest.mark.slow

CALIBRATION = Path(str(files("bocr_onnx.calibration")))

DEMO, DIGITS = CALIBRATION / "demo.onnx", CALIBRATION / "digits.npz"
QUICK = {"trials": 7, "n_score": 200, "n_recovery": 120}


def independent_macs(path):
    """Multiply-accumulates counted from the file's own shapes, without any code of ours."""
    model = onnx.load(path)
    for info in model.graph.input:
        for dim in info.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.dim_value = 1
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*model.graph.value_info, *model.graph.output, *model.graph.input)
    }
    weights = {t.name: list(t.dims) for t in model.graph.initializer}
    total = 0
    for node in model.graph.node:
        if node.op_type == "Conv":
            total += np.prod(weights[node.input[1]]) * np.prod(shapes[node.output[0]][2:])
        elif node.op_type in ("Gemm", "MatMul"):
            total += np.prod(weights[node.input[1]])
    return int(total)


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pruned")
    report = bocr_onnx.prune(DEMO, flops=0.5, data=DIGITS, output=folder / "slim.onnx", finetune=0.5, **QUICK)
    return folder, report


def test_the_slim_model_runs_and_keeps_its_interface(pruned):
    folder, _ = pruned
    before, after = onnx.load(DEMO), onnx.load(folder / "slim.onnx")
    assert before.graph.input == after.graph.input
    assert before.graph.output == after.graph.output
    assert before.opset_import == after.opset_import
    session = onnxruntime.InferenceSession(str(folder / "slim.onnx"))
    for batch in (1, 32):
        assert session.run(None, {"input": np.zeros((batch, 1, 8, 8), np.float32)})[0].shape == (batch, 10)


def test_the_budget_holds_by_an_independent_count(pruned):
    folder, report = pruned
    kept = independent_macs(folder / "slim.onnx") / independent_macs(DEMO)
    assert 0.45 <= kept <= 0.5
    assert report.result.macs == independent_macs(folder / "slim.onnx")
    assert report.baseline.macs == independent_macs(DEMO)
    assert report.result.size_bytes == (folder / "slim.onnx").stat().st_size


def test_the_digits_are_still_read(pruned):
    folder, report = pruned
    assert report.baseline.accuracy > 0.97
    assert report.result.accuracy > report.baseline.accuracy - 0.02
    again = bocr_onnx.evaluate(folder / "slim.onnx", DIGITS)
    assert again.score.value == pytest.approx(report.result.accuracy)


def test_the_report_has_the_contracts_fields(pruned):
    folder, report = pruned
    record = json.loads((folder / "slim.run" / "report.json").read_text())
    assert record == json.loads(report.dumps())
    figures = {"macs", "params", "size_bytes", "accuracy", "latency_ms"}
    assert record["schema"] == 1
    assert record["model"].keys() >= {"path", "sha256"}
    assert record["baseline"].keys() >= figures
    assert record["result"].keys() >= figures | {"accuracy_before_finetune"}
    assert record["search"].keys() >= {"strategy", "trials", "seed", "seconds"}
    assert record["search"]["trials"] == 7
    assert record["proof"]["passed"] is True
    assert record["proof"]["max_rel_diff"] < 1e-4
    assert record["target"] == {"flops": 0.5}
    assert isinstance(record["refusals"], list)
    assert record["missed"] == []
    parts = record["data"]["parts"]
    assert parts["score"]["n_images"] == 200
    assert parts["score"]["rows_sha256"] != parts["recovery"]["rows_sha256"]
    assert "| top-1 |" in (folder / "slim.run" / "report.md").read_text()


def test_finetuning_is_recorded_and_agrees(pruned):
    _, report = pruned
    assert report.finetune["epochs_done"] > 0
    assert report.finetune["agreement_before"] < 1e-4
    assert report.finetune["agreement_after"] < 1e-4
    assert report.accuracy_before_finetune is not None


def test_apply_repeats_the_cut(pruned, tmp_path):
    folder, report = pruned
    applied = bocr_onnx.apply(DEMO, folder / "slim.run" / "plan.json", tmp_path / "again.onnx")
    assert applied.result.macs == report.result.macs
    assert applied.proof.passed
    slim, again = onnx.load(folder / "slim.onnx"), onnx.load(tmp_path / "again.onnx")
    dims = {t.name: list(t.dims) for t in slim.graph.initializer}
    assert {t.name: list(t.dims) for t in again.graph.initializer}.items() <= dims.items()


def test_same_seed_same_plan(pruned, tmp_path):
    folder, _ = pruned
    bocr_onnx.prune(DEMO, flops=0.5, data=DIGITS, output=tmp_path / "b.onnx", **QUICK)
    assert (tmp_path / "b.run" / "plan.json").read_bytes() == (folder / "slim.run" / "plan.json").read_bytes()


def test_a_run_resumes_from_its_directory(pruned, tmp_path):
    folder, _ = pruned
    run = tmp_path / "run"
    run.mkdir()
    source = folder / "slim.run"
    options = json.loads((source / "run.json").read_text()) | {"output": str(tmp_path / "c.onnx"), "finetune": 0}
    (run / "run.json").write_text(json.dumps(options))
    lines = (source / "journal.jsonl").read_text().splitlines(keepends=True)
    (run / "journal.jsonl").write_text("".join(lines[:9]) + lines[9][:20])
    report = bocr_onnx.prune(DEMO, resume=run)
    assert report.search["trials"] == 7
    assert json.loads((run / "plan.json").read_text()) == json.loads((source / "plan.json").read_text())


def test_another_search_into_the_same_directory_keeps_the_old_journal(pruned, tmp_path):
    folder, _ = pruned
    run = tmp_path / "run"
    run.mkdir()
    old = (folder / "slim.run" / "journal.jsonl").read_bytes()
    (run / "journal.jsonl").write_bytes(old)
    report = bocr_onnx.prune(
        DEMO, flops=0.6, data=DIGITS, output=tmp_path / "d.onnx", run_dir=run, **(QUICK | {"trials": 2})
    )
    assert report.search["trials"] == 2
    assert (run / "journal.old.jsonl").read_bytes() == old


def test_uniform_needs_no_data(tmp_path):
    report = bocr_onnx.prune(DEMO, flops=0.6, strategy="uniform", output=tmp_path / "u.onnx", round_to=1)
    assert 0.55 < report.result.macs / report.baseline.macs <= 0.6
    assert report.result.accuracy is None
    assert report.proof["passed"]


def test_params_and_size_budgets(tmp_path):
    report = bocr_onnx.prune(DEMO, params=0.5, size=0.45, strategy="uniform", output=tmp_path / "u.onnx", round_to=1)
    assert report.result.params <= 0.5 * report.baseline.params
    assert report.result.size_bytes <= 0.45 * report.baseline.size_bytes * 1.001


def test_frozen_groups_keep_all_channels(tmp_path):
    groups = bocr_onnx.inspect(DEMO).groups
    report = bocr_onnx.prune(
        DEMO, flops=0.7, strategy="uniform", output=tmp_path / "f.onnx", freeze=[groups[0].name], round_to=1
    )
    kept = {g.name: g.n_kept for g in report.groups}
    assert kept[groups[0].name] == groups[0].n_channels
    assert any(g.n_kept < g.n_channels for g in report.groups)


def test_unlabelled_images_score_agreement(tmp_path):
    images = np.load(DIGITS)["images"][:300]
    np.savez(tmp_path / "plain.npz", images=images)
    report = bocr_onnx.prune(
        DEMO, flops=0.5, data=tmp_path / "plain.npz", preset="digits", output=tmp_path / "a.onnx", **QUICK
    )
    assert report.metric == "agreement with the original"
    assert report.baseline.accuracy == 1.0
    assert report.result.accuracy > 0.8


def test_an_interrupted_search_keeps_its_trials(tmp_path, monkeypatch):
    from bocr_onnx.recovery import PolicyScorer

    score, calls = PolicyScorer.score, []

    def interrupting(self, *args, **kwargs):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return score(self, *args, **kwargs)

    monkeypatch.setattr(PolicyScorer, "score", interrupting)
    with pytest.raises(KeyboardInterrupt):
        bocr_onnx.prune(DEMO, flops=0.5, data=DIGITS, output=tmp_path / "i.onnx", **QUICK)
    monkeypatch.undo()
    assert not (tmp_path / "i.onnx").exists()
    ended = [json.loads(line) for line in (tmp_path / "i.run" / "journal.jsonl").read_text().splitlines()[1:]]
    assert sum(t["state"] == "complete" for t in ended) == 3
    assert bocr_onnx.prune(DEMO, resume=tmp_path / "i.run").search["trials"] == 7


def shuffled(tmp_path):
    data = dict(np.load(DIGITS))
    data["labels"] = np.random.default_rng(0).permutation(data["labels"])
    data["val_labels"] = np.random.default_rng(1).permutation(data["val_labels"])
    np.savez(tmp_path / "shuffled.npz", **data)
    return tmp_path / "shuffled.npz"


def out_of_range(tmp_path):
    data = dict(np.load(DIGITS))
    np.savez(tmp_path / "range.npz", **(data | {"val_labels": data["val_labels"] + 5}))
    return tmp_path / "range.npz"


def wrong_size(tmp_path):
    np.savez(tmp_path / "size.npz", images=np.zeros((20, 3, 16, 16), np.float32), labels=np.arange(20) % 10)
    return tmp_path / "size.npz"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (shuffled, "better than guessing"),
        (out_of_range, "labels must be below the model's 10 classes, got 14"),
        (wrong_size, r"'input' \(1, 8, 8\)"),
        (lambda folder: folder / "missing", "missing"),
    ],
)
def test_wrong_data(tmp_path, make, text):
    with pytest.raises(DataError, match=text):
        bocr_onnx.prune(DEMO, flops=0.5, data=make(tmp_path), output=tmp_path / "x.onnx", **QUICK)
    assert not list(tmp_path.glob("x.*")), "a failed run leaves nothing"


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"flops": 0.001, "search": "uniform"}, BudgetError, "smallest reachable share"),
        ({"flops": 0.5}, UsageError, "must have images to score with"),
        ({"search": "uniform"}, UsageError, "a budget must be given"),
        ({"flops": 0.5, "search": "unifrom"}, UsageError, "Did you mean 'uniform'"),
        ({"flops": 0.5, "search": "uniform", "freeze": ["nothing*"]}, UsageError, "`freeze` must match a group"),
        ({"flops": 0.5, "search": "uniform", "only": ["nothing*"]}, UsageError, "`only` must match a group"),
        ({"flops": 0.5, "search": "uniform", "min_width": 0}, UsageError, "`min_width` must be at least 1"),
        ({"flops": 0.5, "search": "uniform", "round_to": "three"}, UsageError, "whole number"),
        ({"flops": 0.5, "search": "uniform", "trials": 0}, UsageError, "`trials` must be at least 1"),
        ({"flops": 0.5, "search": "uniform", "finetune": 1}, UsageError, "images to train on"),
        ({"flops": 0.5, "data": DIGITS, "preset": "digit"}, UsageError, "Did you mean 'digits'"),
    ],
)
def test_wrong_options(tmp_path, options, error, text):
    with pytest.raises(error, match=text):
        bocr_onnx.prune(DEMO, output=tmp_path / "x.onnx", **options)
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize(
    ("options", "said", "unsaid"),
    [
        ({}, "A finer grid reaches further: `round_to=1`.", "`freeze`"),
        ({"round_to": 1}, "", "--"),
        ({"round_to": 1, "freeze": ["*"]}, "", "`round_to"),
        ({"round_to": 1, "min_width": 5}, "`min_width` also keep channels.", "`freeze`"),
    ],
)
def test_hints_of_an_unreachable_budget_name_what_was_not_given(tmp_path, options, said, unsaid):
    with pytest.raises(BudgetError) as caught:
        bocr_onnx.prune(DEMO, flops=0.001, strategy="uniform", output=tmp_path / "x.onnx", **options)
    assert said in caught.value.hint
    assert unsaid not in caught.value.hint


def test_what_is_refused_and_costs_most_is_named_where_a_budget_is_out_of_reach(tmp_path):
    wide = proto(
        """m (float[1, 32, 8, 8] x) => (float[1, 32, 8, 8] y, float[1, 4, 8, 8] z) {
            y = Conv <pads = [1, 1, 1, 1]> (x, w) a = Conv <pads = [1, 1, 1, 1]> (x, v) z = Conv(a, u)
        }""",
        w=(32, 32, 3, 3), v=(8, 32, 3, 3), u=(4, 8, 1, 1),
    )  # fmt: skip
    onnx.save(wide, tmp_path / "m.onnx")
    with pytest.raises(BudgetError) as caught:
        bocr_onnx.prune(tmp_path / "m.onnx", flops=0.5, strategy="uniform", round_to=1, output=tmp_path / "x.onnx")
    assert caught.value.hint == "Left alone: Conv_0 (80% of the MACs; they are the model's output 'y')."


def test_a_resumed_run_may_have_more_trials_and_other_options_are_refused_by_name(tmp_path):
    asked = {"data": DIGITS, "n_score": 40, "n_recovery": 40, "search": "random", "seed": 3, "history": "none"}
    first = bocr_onnx.prune(DEMO, flops=0.5, trials=2, output=tmp_path / "s.onnx", **asked)
    assert first.search["trials"] == 2
    more = bocr_onnx.prune(DEMO, resume=tmp_path / "s.run", trials=4, history="none")
    assert more.search["trials"] == 4
    again = bocr_onnx.prune(DEMO, resume=tmp_path / "s.run", seed=3, n_score=40, history="none")
    assert again.search["trials"] == 4
    for given, text in (
        ({"seed": 4}, "`seed` must stay as it was in the run that is resumed, 3, got 4"),
        ({"n_score": 50}, "`score_images` must stay as it was"),
        ({"search": "bo"}, "`search` must stay as it was"),
        ({"trials": 3}, "`trials` must stay as it was in the run that is resumed, 4, got 3"),
        ({"flops": 0.4}, "`flops` must stay as it was in the run that is resumed, 0.5, got 0.4"),
    ):
        with pytest.raises(UsageError, match=text):
            bocr_onnx.prune(DEMO, resume=tmp_path / "s.run", history="none", **given)


def test_a_resumed_run_writes_where_the_first_one_would_have(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    asked = {"data": DIGITS, "n_score": 40, "n_recovery": 40, "search": "sensitivity", "history": "none"}
    bocr_onnx.prune(DEMO, flops=0.5, output="s.onnx", **asked)
    Path("s.onnx").unlink()
    monkeypatch.chdir(tmp_path / "there")
    bocr_onnx.prune(DEMO, resume=tmp_path / "here" / "s.run")
    assert (tmp_path / "here" / "s.onnx").exists()
    assert not list((tmp_path / "there").iterdir())


def test_what_a_killed_run_has_left_is_removed_and_long_names_are_refused(tmp_path):
    asked = {"data": DIGITS, "n_score": 40, "n_recovery": 40, "search": "sensitivity", "history": "none"}
    run = tmp_path / "s.run"
    run.mkdir()
    left = [tmp_path / ".s.onnx.ab12.part", run / ".report.json.cd34.part"]
    others = [tmp_path / ".t.onnx.ab12.part", tmp_path / ".s.onnx.keep"]
    for path in (*left, *others):
        path.write_text("half")
    bocr_onnx.prune(DEMO, flops=0.5, output=tmp_path / "s.onnx", **asked)
    assert not [path for path in left if path.exists()]
    assert all(path.exists() for path in others)
    with pytest.raises(OutputError, match="must be at most 200 bytes long"):
        bocr_onnx.prune(DEMO, flops=0.5, output=tmp_path / f"{'x' * 230}.onnx", **asked)


def test_python_and_the_command_line_have_the_same_names(tmp_path):
    asked = {"flops": 0.5, "data": DIGITS, "output": tmp_path / "s.onnx", "history": "none"}
    new = {"search": "sensitivity", "score_images": 40, "recovery_images": 50, "final_images": 60}
    report = bocr_onnx.prune(DEMO, **asked, **new)
    parts = {name: part["n_images"] for name, part in report.data["parts"].items()}
    assert (parts["score"], parts["recovery"], parts["final"]) == (40, 50, 60)
    old = {"search": "sensitivity", "n_score": 40, "n_recovery": 50, "final_images": 60}
    assert bocr_onnx.prune(DEMO, **asked, **old).data == report.data
    with pytest.raises(UsageError, match="one of `search` and its old name strategy must be given, got both"):
        bocr_onnx.prune(DEMO, **asked, search="bo", strategy="bo")


def test_what_is_no_model_and_no_data_is_refused_in_words(tmp_path):
    for given, text in (
        ({"model": 3}, "`model` must be a path or an onnx.ModelProto, got a int"),
        ({"model": DEMO, "data": {"images": 3}}, "`data` must be a path, an array, or"),
        ({"model": onnx.load(DEMO), "output": None}, "`output` must be given for a model in memory"),
    ):
        with pytest.raises(UsageError, match=text):
            bocr_onnx.prune(**({"flops": 0.5, "search": "uniform", "output": tmp_path / "s.onnx"} | given))
    assert not list(tmp_path.iterdir())


def test_a_model_and_images_in_memory_give_the_same_file_and_resume(tmp_path):
    digits = np.load(DIGITS)
    quick = QUICK | {"flops": 0.5, "trials": 3, "history": "none"}
    np.savez(tmp_path / "images.npz", images=digits["images"], labels=digits["labels"])
    bocr_onnx.prune(DEMO, data=tmp_path / "images.npz", output=tmp_path / "file.onnx", **quick)
    asked = {"data": (digits["images"], digits["labels"]), "output": tmp_path / "memory.onnx", **quick}
    bocr_onnx.prune(onnx.load(DEMO), **asked)
    assert (tmp_path / "file.onnx").read_bytes() == (tmp_path / "memory.onnx").read_bytes()
    kept = tmp_path / "memory.run"
    report = bocr_onnx.prune(str(kept / "model.onnx"), resume=kept, trials=4)
    assert report.search["trials"] == 4


def test_several_budgets_from_python(tmp_path):
    asked = {"flops": (0.7, 0.5), "search": "uniform", "output": tmp_path / "s.onnx"}
    assert [r.target["flops"] for r in bocr_onnx.prune_each(DEMO, **asked)] == [0.7, 0.5]
    with pytest.raises(UsageError, match="prune must have one budget, got several"):
        bocr_onnx.prune(DEMO, **asked)


def test_a_history_that_cannot_be_opened_is_a_note_unless_it_was_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    closed = tmp_path / "file" / "history.sqlite"
    monkeypatch.setenv("BOCR_ONNX_HISTORY", str(closed))
    notes = []
    quiet = type("Noting", (Silent,), {"note": lambda self, text: notes.append(text)})()
    asked = {"flops": 0.5, "search": "uniform", "output": tmp_path / "s.onnx", "progress": quiet}
    assert bocr_onnx.prune(DEMO, **asked).proof["passed"]
    assert [note for note in notes if note.startswith("no history: ")]
    with pytest.raises(HistoryError):
        bocr_onnx.prune(DEMO, **asked, history=str(closed))


def test_wrong_outputs(tmp_path):
    for output, text in ((tmp_path, "got a folder"), (tmp_path / "no" / "x.onnx", "must exist")):
        with pytest.raises(OutputError, match=text):
            bocr_onnx.prune(DEMO, flops=0.5, strategy="uniform", output=output)
    model = tmp_path / "m.onnx"
    model.write_bytes(DEMO.read_bytes())
    with pytest.raises(UsageError, match="must not be a file that is read"):
        bocr_onnx.prune(model, flops=0.5, strategy="uniform", output=model)


def test_a_run_directory_that_is_none(tmp_path):
    with pytest.raises(ResumeError, match="must be a run directory"):
        bocr_onnx.prune(DEMO, resume=tmp_path)
    (tmp_path / "run.json").write_text('{"model": "m", "colour": "red"}')
    with pytest.raises(ResumeError, match="unknown option `colour`"):
        bocr_onnx.prune(DEMO, resume=tmp_path)


def test_resuming_with_another_model_is_refused(pruned, tmp_path):
    folder, _ = pruned
    proto = onnx.load(DEMO)
    first = proto.graph.initializer[0]
    first.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(first) + 1e-3, first.name))
    onnx.save(proto, tmp_path / "other.onnx")
    run = tmp_path / "run"
    run.mkdir()
    for name in ("run.json", "journal.jsonl"):
        (run / name).write_text((folder / "slim.run" / name).read_text())
    with pytest.raises(ResumeError, match="model_sha256"):
        bocr_onnx.prune(tmp_path / "other.onnx", resume=run)


def test_a_plan_of_another_model_is_refused(pruned, tmp_path):
    folder, _ = pruned
    with pytest.raises(PlanError, match="groups must be those of the model"):
        bocr_onnx.apply(folder / "slim.onnx", folder / "slim.run" / "plan.json", tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()


def test_a_file_that_is_no_model(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(DEMO.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"bad\.onnx"):
        bocr_onnx.inspect(tmp_path / "bad.onnx")


def test_options_are_what_run_json_holds(pruned):
    folder, _ = pruned
    record = json.loads((folder / "slim.run" / "run.json").read_text())
    assert record.keys() == {o.name for o in options_of(PruneOptions) if o.flag.stored}


def test_all_deliberate_errors_are_one_family():
    for error in (BudgetError, DataError, ModelError, OutputError, PlanError, ResumeError, UsageError):
        assert issubclass(error, BocrError)


def test_results_never_overwrite_what_they_are_made_from(tmp_path):
    proto = onnx.load(DEMO)
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    weights = (tmp_path / "weights.bin").read_bytes()
    options = {"flops": 0.6, "search": "uniform"}
    with pytest.raises(UsageError, match="must not be a file that is read"):
        bocr_onnx.prune(tmp_path / "m.onnx", output=tmp_path / "weights.bin", **options)
    assert (tmp_path / "weights.bin").read_bytes() == weights
    for _ in range(2):  # and again over its own result
        bocr_onnx.prune(tmp_path / "m.onnx", output=tmp_path / "s.onnx", **options)
    plan = tmp_path / "plan.json"
    plan.write_bytes(DEMO.read_bytes())
    with pytest.raises(UsageError, match="must not be a file that is read"):
        bocr_onnx.prune(plan, output=tmp_path / "t.onnx", run_dir=tmp_path, **options)
    (tmp_path / "r").mkdir()
    with pytest.raises(UsageError, match="got it twice"):
        bocr_onnx.prune(DEMO, output=tmp_path / "r" / "plan.json", run_dir=tmp_path / "r", **options)
    with pytest.raises(UsageError, match="must not be a file that is read"):
        bocr_onnx.apply(tmp_path / "m.onnx", tmp_path / "s.run" / "plan.json", tmp_path / "s.run" / "plan.json")


@pytest.mark.parametrize("changed", [{"trials": "many"}, {"seed": 1.5}, {"freeze": [1]}, {"threads": None}])
def test_options_of_the_wrong_type_are_refused(pruned, tmp_path, changed):
    folder, _ = pruned
    options = json.loads((folder / "slim.run" / "run.json").read_text()) | changed
    (tmp_path / "run.json").write_text(json.dumps(options))
    with pytest.raises(ResumeError, match=next(iter(changed))):
        bocr_onnx.prune(DEMO, resume=tmp_path)


@pytest.mark.parametrize("widths", [[1], [-5] * 7, [10**9] * 7, "many", [[1]]])
def test_a_journal_with_other_policies_is_refused(pruned, tmp_path, widths):
    folder, _ = pruned
    lines = [json.loads(line) for line in (folder / "slim.run" / "journal.jsonl").read_text().splitlines()]
    lines[2]["widths"] = widths
    (tmp_path / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "run.json").write_text((folder / "slim.run" / "run.json").read_text())
    with pytest.raises(ResumeError, match="journal"):
        bocr_onnx.prune(DEMO, resume=tmp_path)


def test_a_model_whose_channels_mix_at_other_sizes_is_not_emitted(tmp_path):
    """Reshape(-1, C) of (N, C, L) only keeps channels apart while L is one, which is what an open L counts as."""
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> m (float[N, 3, L] x) => (float[M, 2] y) {
            c = Conv(x, W)
            r = Reshape(c, t)
            y = MatMul(r, V)
        }"""
    )
    rng = np.random.default_rng(0)
    for name, shape in (("W", (16, 3, 1)), ("V", (16, 2))):
        proto.graph.initializer.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([-1, 16]), "t"))
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(BocrError):
        bocr_onnx.prune(tmp_path / "m.onnx", flops=0.6, strategy="uniform", output=tmp_path / "s.onnx", round_to=1)
    assert not list(tmp_path.glob("s.*"))


def test_very_few_images_are_enough_to_run(tmp_path):
    data = np.load(DIGITS)
    np.savez(tmp_path / "few.npz", images=data["images"][:6], labels=data["labels"][:6])
    report = bocr_onnx.prune(
        DEMO, flops=0.6, data=tmp_path / "few.npz", preset="digits", output=tmp_path / "s.onnx", trials=2
    )
    assert report.proof["passed"]


def test_weights_that_are_no_numbers_cannot_be_proved(tmp_path):
    proto = onnx.load(DEMO)
    for tensor in proto.graph.initializer:
        if len(tensor.dims) == 4:
            tensor.CopyFrom(numpy_helper.from_array(np.full(tuple(tensor.dims), np.nan, np.float32), tensor.name))
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="must be finite"):
        bocr_onnx.prune(tmp_path / "m.onnx", flops=0.6, strategy="uniform", output=tmp_path / "s.onnx")


def test_a_batch_of_one_baked_into_the_model_is_scored_recovered_and_trained_one_by_one(tmp_path: Path) -> None:
    made = proto(
        """m (float[N, 1, 8, 8] x) => (float[M, 10] y) {
            c = Conv <pads = [1, 1, 1, 1]> (x, W) r = Relu(c) d = Conv(r, V) s = Relu(d)
            f = Reshape(s, t) y = Gemm(f, U)
        }""",
        W=(8, 1, 3, 3),
        V=(12, 8, 1, 1),
        U=(768, 10),
        t=[1, 768],
    )
    path, images = tmp_path / "m.onnx", np.load(DIGITS)["images"][:120]
    onnx.save(made, path)
    np.savez(tmp_path / "plain.npz", images=images)
    report = bocr_onnx.prune(
        path,
        flops=0.6,
        data=tmp_path / "plain.npz",
        strategy="sensitivity",
        preset="digits",
        finetune=0.2,
        n_score=20,
        n_recovery=40,
        round_to=1,
    )
    assert report.finetune["agreement_after"] < 1e-4
    assert report.result.macs <= 0.6 * report.baseline.macs


def test_only_the_named_groups_are_cut_and_none_below_the_minimum(tmp_path: Path) -> None:
    groups = bocr_onnx.inspect(DEMO).groups
    chosen = [g for g in groups if g.n_channels >= 8][:2]
    bocr_onnx.prune(
        DEMO,
        params=0.98,
        strategy="uniform",
        output=tmp_path / "o.onnx",
        only=[g.name for g in chosen],
        min_width=3,
        round_to=1,
    )
    plan = json.loads((tmp_path / "o.run" / "plan.json").read_text())
    kept = {g["name"]: (len(g["kept"]), g["n_channels"]) for g in plan["groups"]}
    assert any(kept[g.name][0] < kept[g.name][1] for g in chosen)
    assert all(now == before for name, (now, before) in kept.items() if name not in {g.name for g in chosen})
    assert all(now >= 3 for now, _ in kept.values())


def test_a_model_that_cannot_be_trained_is_refused_before_the_search(tmp_path: Path) -> None:
    made = proto(
        """m (float[N, 3, 8, 8] x) => (float[N, 2] y) {
            c = Conv(x, W) n = Hardmax(c) p = GlobalAveragePool(n) f = Flatten(p)
            h = Gemm(f, V) r = Relu(h) y = Gemm(r, U)
        }""",
        W=(6, 3, 1, 1),
        V=(6, 8),
        U=(8, 2),
    )
    path = tmp_path / "m.onnx"
    onnx.save(made, path)
    with pytest.raises(TrainingError, match="Hardmax"):
        bocr_onnx.prune(path, flops=0.9, data=tmp_path / "nothing_there", finetune=1)
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]
