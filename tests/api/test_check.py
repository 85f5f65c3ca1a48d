"""`check`: every limit, what it says where it cannot tell, and what a CI system reads of it."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

import bocr_onnx
from bocr_onnx.cli.main import app
from bocr_onnx.devices import Latency, Measured
from bocr_onnx.devices.host import Host
from bocr_onnx.errors import BocrError, DeviceError, OutputError, UsageError
from bocr_onnx.report.junit import junit
from bocr_onnx.report.verdict import Checked, Criterion, markdown
from bocr_onnx.tasks.classification import Classification

DEMO = str(files("bocr_onnx.calibration") / "demo.onnx")
DIGITS = str(files("bocr_onnx.calibration") / "digits.npz")


@pytest.fixture(scope="module")
def slim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the demo at half its MACs; its plan lies in its run folder."""
    path = tmp_path_factory.mktemp("check") / "slim.onnx"
    bocr_onnx.prune(
        DEMO, flops=0.5, search="uniform", recover="oneshot", data=DIGITS, history="none", score_images=200,
        recovery_images=200, final_images=200, output=path,
    )  # fmt: skip
    return path


def plan_of(slim: Path) -> Path:
    return slim.with_name("slim.run") / "plan.json"


@pytest.fixture(scope="module")
def odd(slim: Path) -> dict[str, str]:
    """Returns files that are not what they should be: damaged, of another interface or model, without labels."""
    folder = slim.parent
    (folder / "damaged.onnx").write_bytes(Path(DEMO).read_bytes()[:-40_000])
    model = onnx.load(DEMO)
    renamed = onnx.ModelProto()
    renamed.CopyFrom(model)
    old = renamed.graph.output[0].name
    renamed.graph.output[0].name = "other"
    for node in renamed.graph.node:
        node.output[:] = ["other" if name == old else name for name in node.output]
    onnx.save(renamed, folder / "renamed.onnx")
    wrong = onnx.load(str(slim))
    del wrong.graph.node[-1].input[:]
    onnx.save(wrong, folder / "invalid.onnx")
    digits = np.load(DIGITS)
    np.save(folder / "images.npy", next(digits[name] for name in digits.files if digits[name].ndim > 1)[:120])
    other = json.loads(plan_of(slim).read_text())
    other["groups"] = other["groups"][:-1]
    (folder / "other.json").write_text(json.dumps(other))
    return {path.stem: str(path) for path in folder.iterdir() if path.is_file()}


PASSED: list[dict[str, Any]] = [
    {},
    {"against": DEMO},
    {"against": DEMO, "max_flops": 0.51},
    {"max_flops": "2M", "max_params": "200k", "max_size": "5MB"},
    {"against": DEMO, "max_size": 0.8, "max_params": "1"},
    {"against": DEMO, "plan": "{plan}"},
    {"data": DIGITS, "min_score": 0.2},
    {"against": DEMO, "data": DIGITS, "max_drop": 99},
    {"against": DEMO, "data": "{images}", "max_drop": 99},
    {"against": DEMO, "max_latency": 50, "seconds": 1},
    {"max_latency": "1000ms", "seconds": 1},
]
FAILED: list[tuple[str, dict[str, Any]]] = [
    ("max-flops", {"against": DEMO, "max_flops": 0.3}),
    ("max-params", {"max_params": 1000}),
    ("max-size", {"max_size": "1kB", "max_flops": "2M"}),
    ("min-score", {"data": DIGITS, "min_score": 0.9999}),
    ("max-drop", {"against": DEMO, "data": DIGITS, "max_drop": 0}),
    ("max-latency", {"against": DEMO, "max_latency": 0.001, "seconds": 1}),
    ("max-latency", {"max_latency": "0.00001ms", "seconds": 1}),
    ("interface", {"against": "{renamed}"}),
    ("proof", {"model": DEMO, "against": DEMO, "plan": "{plan}"}),
]
ERROR: list[tuple[str, dict[str, Any]]] = [
    ("runs", {"model": "{damaged}"}),
    ("runs", {"model": "{invalid}", "max_flops": "2M"}),
    ("max-latency", {"max_latency": "8ms", "device": "ssh://nobody@localhost:9"}),
    ("proof", {"against": DEMO, "plan": "{other}"}),
    ("max-drop", {"against": DEMO, "data": "/nowhere", "max_drop": 1}),
    ("min-score", {"data": "{images}", "min_score": 0.5}),
]


def checked(slim: Path, odd: dict[str, str], given: dict[str, Any]) -> Checked:
    places = odd | {"plan": str(plan_of(slim))}
    filled = {k: v.format(**places) if isinstance(v, str) else v for k, v in given.items()}
    return bocr_onnx.check(**{"model": str(slim)} | filled)


@pytest.mark.parametrize("given", PASSED)
def test_a_model_that_keeps_its_limits(given: dict[str, Any], slim: Path, odd: dict[str, str]) -> None:
    found = checked(slim, odd, given)
    assert [c.verdict for c in found.criteria] == ["passed"] * len(found.criteria), found.criteria
    asked = {name for name in given if name.startswith(("max_", "min_"))}
    assert {c.name.replace("-", "_") for c in found.criteria} >= asked
    assert found.exit_code == 0


@pytest.mark.parametrize(("name", "given"), FAILED)
def test_a_model_that_misses_one(name: str, given: dict[str, Any], slim: Path, odd: dict[str, str]) -> None:
    found = checked(slim, odd, given)
    assert {c.name for c in found.criteria if c.verdict == "failed"} == {name}, found.criteria
    assert found.exit_code == 1


def test_the_command_line_names_its_own_options(slim: Path, odd: dict[str, str]) -> None:
    told = CliRunner().invoke(app, ["check", str(slim), "--data", odd["images"], "--min-score", "0.5"])
    assert told.exit_code == 2
    assert f"--data {odd['images']} must have labels" in told.stdout


def test_a_model_alone_is_scored_once(slim: Path) -> None:
    """An average precision takes seconds, and agreement with itself says nothing."""
    scores: list[int] = []
    plain = Classification.score
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Classification, "score", lambda *given: scores.append(1) or plain(*given))
        bocr_onnx.evaluate(slim, DIGITS)
        assert len(scores) == 1
        bocr_onnx.check(slim, data=DIGITS, min_score=0.1)
    assert len(scores) == 2


def test_a_model_with_another_interface_is_not_scored(slim: Path, odd: dict[str, str]) -> None:
    given = {"against": "{renamed}", "data": DIGITS, "max_drop": 99, "min_score": 0.1}
    found = checked(slim, odd, given)
    failed = {c.name: c.detail for c in found.criteria if c.verdict == "failed"}
    assert set(failed) == {"interface", "max-drop", "min-score"}
    assert failed["max-drop"].startswith("not scored")
    assert found.exit_code == 1


@pytest.mark.parametrize(("name", "given"), ERROR)
def test_what_cannot_be_measured_is_no_pass(name: str, given: dict[str, Any], slim: Path, odd: dict[str, str]) -> None:
    found = checked(slim, odd, given)
    errors = [c for c in found.criteria if c.verdict == "error"]
    assert [c.name for c in errors] == [name]
    assert errors[0].detail
    assert found.exit_code == 2


def test_a_share_is_of_the_original_and_the_figures_are_exact(slim: Path) -> None:
    found = bocr_onnx.check(str(slim), against=DEMO, max_flops=0.9, max_size=0.9, max_params=0.9)
    report = json.loads((slim.with_name("slim.run") / "report.json").read_text())
    by_name = {c.name: c.measured for c in found.criteria}
    for name, field in (("max-flops", "macs"), ("max-params", "params")):
        assert by_name[name] == pytest.approx(report["result"][field] / report["baseline"][field], rel=1e-6)
    assert by_name["max-size"] == pytest.approx(slim.stat().st_size / Path(DEMO).stat().st_size)


def test_the_drop_without_labels_is_of_agreement(slim: Path, odd: dict[str, str]) -> None:
    found = checked(slim, odd, {"against": DEMO, "data": "{images}", "max_drop": 50})
    images = np.load(odd["images"])
    assert images.shape[0] == 120
    (criterion,) = (c for c in found.criteria if c.name == "max-drop")
    assert "agree" in criterion.value
    assert "100.00% to" in criterion.value
    assert criterion.measured is not None
    assert 0 <= criterion.measured < 50


def latencies(*medians: float, spread: float) -> Measured:
    """Returns six rounds of models whose round medians scatter."""
    rng = np.random.default_rng(0)
    found = []
    for median in medians:
        rounds = median * np.exp(spread * rng.standard_normal((6, 1))) * np.ones((6, 5))
        samples = tuple(rounds.reshape(-1).tolist())
        found.append(Latency(
            wall_ms=samples, cpu_ms=samples, clock="wall", threads=1, batch=1, n_rounds=6, init_ms=(1.0,) * 6,
            first_ms=(1.0,) * 6, peak_bytes=None, kernels=(),
        ))  # fmt: skip
    machine: Any = None
    return Measured("host", machine, None, None, tuple(found), ())


@pytest.mark.parametrize(
    ("limit", "spread", "verdict"),
    [(0.6, 1e-4, "passed"), (0.4, 1e-4, "failed"), (0.5, 0.2, "cannot tell"), ("0.5ms", 0.2, "cannot tell"),
     ("0.6ms", 1e-4, "passed"), ("0.4ms", 1e-4, "failed"), (0.1, 0.2, "failed"), (2.0, 0.2, "passed")],
)  # fmt: skip
def test_latency_is_judged_by_the_near_end_of_its_interval(
    limit: Any, spread: float, verdict: str, slim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model takes half a millisecond, its original one."""
    monkeypatch.setattr(Host, "measure", lambda self, models, *_: latencies(*[1.0, 0.5][-len(models) :], spread=spread))
    plain, strict = (bocr_onnx.check(str(slim), against=DEMO, max_latency=limit, strict=s) for s in (False, True))
    (criterion,) = (c for c in plain.criteria if c.name == "max-latency")
    assert criterion.verdict == verdict
    assert criterion.interval is not None
    assert criterion.measured is not None
    assert criterion.interval[0] <= criterion.measured <= criterion.interval[1]
    assert plain.exit_code == (1 if verdict == "failed" else 0)
    assert strict.exit_code == (0 if verdict == "passed" else 1)


def test_a_device_that_is_lost_leaves_the_other_criteria(slim: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: Any) -> Any:
        raise DeviceError("device host must answer", hint="Plug it in")

    monkeypatch.setattr(Host, "measure", lost)
    found = bocr_onnx.check(str(slim), against=DEMO, max_flops=0.1, max_latency=0.5)
    verdicts = {c.name: c.verdict for c in found.criteria}
    assert verdicts == {"runs": "passed", "interface": "passed", "max-flops": "failed", "max-latency": "error"}
    assert "Plug it in" in found.criteria[-1].detail
    assert found.exit_code == 2


@pytest.mark.parametrize(
    "given",
    [{"max_flops": 0.5}, {"max_latency": 0.5}, {"min_score": 0.5}, {"data": DIGITS, "max_drop": 1}, {"plan": "p.json"},
     {"max_size": "5 parsecs"}, {"max_params": -1}, {"max_latency": "0.5,0.6"}, {"max_flops": True},
     {"max_latency": 0}, {"min_score": 2, "data": DIGITS}],
)  # fmt: skip
def test_limits_without_what_they_are_compared_with(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        bocr_onnx.check(DEMO, **given)


def test_a_report_that_cannot_be_written_is_known_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="folder of output"):
        bocr_onnx.check("/nowhere.onnx", junit=tmp_path / "no" / "j.xml")
    with pytest.raises(BocrError):
        bocr_onnx.check(DEMO, against="/nowhere.onnx")


# What a CI system reads.

CHILDREN = {
    "testsuites": {"testsuite"}, "testsuite": {"properties", "testcase", "system-out", "system-err"},
    "properties": {"property"}, "property": set(), "failure": set(), "error": set(), "skipped": set(),
    "testcase": {"skipped", "error", "failure", "system-out", "system-err"}, "system-out": set(),
}  # fmt: skip
ATTRIBUTES = {
    "testsuites": set(), "properties": set(), "property": {"name", "value"}, "system-out": set(),
    "testsuite": {"name", "tests", "failures", "errors", "skipped", "time"}, "testcase": {"name", "classname", "time"},
    "failure": {"type", "message"}, "error": {"type", "message"}, "skipped": {"type", "message"},
}  # fmt: skip
"""From the schema by which Jenkins checks reports: every attribute that it requires is written."""

HOSTILE = "<b>&\"'\x00\x1b|`*]]>\n# boo"
ALL = Checked(
    HOSTILE,
    "original.onnx",
    (
        Criterion("runs", "passed", seconds=0.25),
        Criterion("max-flops", "failed", "50 %", "60 %", seconds=0.5),
        Criterion("max-latency", "cannot tell", "0.6", "0.59 (0.5 to 0.7)", HOSTILE),
        Criterion("min-score", "error", detail="no images"),
    ),
)


def suite_of(found: Checked) -> ET.Element:
    root = ET.fromstring(junit(found))
    for element in root.iter():
        assert set(element.attrib) == ATTRIBUTES[element.tag]
        assert {child.tag for child in element} <= CHILDREN[element.tag]
    suite = root.find("testsuite")
    assert suite is not None
    return suite


@pytest.mark.parametrize("strict", [False, True])
def test_junit_has_a_case_for_every_criterion(strict: bool) -> None:
    suite = suite_of(Checked(ALL.model, ALL.against, ALL.criteria, strict))
    assert (suite.get("tests"), suite.get("errors"), suite.get("time")) == ("4", "1", "0.750")
    assert (suite.get("failures"), suite.get("skipped")) == (("2", "0") if strict else ("1", "1"))
    tags = [[child.tag for child in case if child.tag != "system-out"] for case in suite.iter("testcase")]
    assert tags == [[], ["failure"], ["failure" if strict else "skipped"], ["error"]]
    failure = next(suite.iter("failure"))
    assert failure.get("message") == "max-flops failed with 60 %, limit 50 %"


def test_the_summary_begins_with_the_verdict_and_no_name_breaks_its_table() -> None:
    text = markdown(ALL)
    head, empty, *rows = text.splitlines()
    assert head.startswith("### ⚠️")
    assert "error (1 passed, 1 failed, 1 cannot tell, 1 error)" in head
    assert not empty
    assert len(rows) == 2 + len(ALL.criteria)
    for row in rows:
        assert row.replace("\\|", "").count("|") == 6
    assert "<b>" not in text.replace("\\<b\\>", "")


def test_the_command_writes_both_and_its_exit_code_says_it(slim: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from bocr_onnx.cli.main import run; run()",
        "check",
        str(slim),
        "--against",
        DEMO,
        "--max-flops",
        "0.3",
    ]
    command += ["--junit", str(tmp_path / "j.xml"), "--summary", str(tmp_path / "s.md")]
    (tmp_path / "s.md").write_text("before\n")
    found = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert found.returncode == 1, found.stderr
    record = json.loads(found.stdout)
    assert record["verdict"] == "failed"
    assert [c["name"] for c in record["criteria"]] == ["runs", "interface", "max-flops"]
    assert next(ET.parse(tmp_path / "j.xml").getroot().iter("failure")) is not None
    assert (tmp_path / "s.md").read_text().startswith("before\n### ❌")
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "failed (2 passed, 1 failed)" in shown.stdout
    missing = subprocess.run([*command[:4], "/nowhere.onnx"], capture_output=True, text=True, check=False)
    assert missing.returncode == 2
