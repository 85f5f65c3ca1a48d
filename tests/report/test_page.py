"""report.html: it tells what the run has found, opens in a browser without a request, and escapes every name."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import bocr_onnx
from bocr_onnx.errors import DataError, OutputError
from bocr_onnx.report import charts

DEMO = str(files("bocr_onnx.calibration") / "demo.onnx")
DIGITS = str(files("bocr_onnx.calibration") / "digits.npz")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Returns the folders of a run with a search and int8, and of one without either."""
    folder = tmp_path_factory.mktemp("page")
    small: dict[str, Any] = {"data": DIGITS, "score_images": 150, "recovery_images": 120, "final_images": 200}
    for name, given in (("a", {"flops": 0.5, "trials": 6, "int8": True}), ("b", {"flops": 0.7, "search": "uniform"})):
        bocr_onnx.prune(DEMO, recover="oneshot", history="none", output=folder / f"{name}.onnx", **small, **given)
    return folder / "a.run", folder / "b.run"


class Words(HTMLParser):
    """Collects the tags and the words of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def test_it_tells_the_figures_of_the_run(runs: tuple[Path, Path]) -> None:
    path = bocr_onnx.write_report(runs[0])
    assert path == runs[0] / "report.html"
    record = json.loads((runs[0] / "report.json").read_text())
    page = Words(path.read_text())
    for value in (record["result"]["macs"], record["int8"]["size_bytes"], record["baseline"]["params"]):
        assert f"{value:,}" in page.text
    assert f"{record['result']['accuracy']:.2%}" in page.text
    assert f"{record['latency']['speedup']['value']:.2f} (" in page.text
    assert all(group["name"] in page.text for group in record["groups"])
    assert "slim, int8" in page.text
    assert page.tags.count("svg") == 10, "five charts in two themes"
    assert path.stat().st_size < 1_500_000


def test_every_scored_trial_is_in_its_table(runs: tuple[Path, Path]) -> None:
    page = bocr_onnx.write_report(runs[0]).read_text()
    journal = [json.loads(line) for line in (runs[0] / "journal.jsonl").read_text().splitlines()]
    scored = {row["number"] for row in journal if row.get("objective") is not None}
    assert scored
    assert f"all {len(scored)} trials" in page
    with (runs[0] / "journal.jsonl").open("a") as file:
        file.write('{"number": 99, "objective": "nan", "score"')
    assert f"all {len(scored)} trials" in bocr_onnx.write_report(runs[0]).read_text()


def test_another_run_stands_beside_it(runs: tuple[Path, Path], tmp_path: Path) -> None:
    path = bocr_onnx.write_report(runs[0], compare=runs[1], output=tmp_path / "both.html")
    page = Words(path.read_text())
    other = json.loads((runs[1] / "report.json").read_text())
    assert "slim (a.run)" in page.text
    assert "slim (b.run)" in page.text
    assert f"{other['result']['macs']:,}" in page.text


def test_the_command_makes_the_run_again(runs: tuple[Path, Path]) -> None:
    found = re.search(r"<pre>(.*?)</pre>", bocr_onnx.write_report(runs[0]).read_text(), re.S)
    assert found is not None
    words = shlex.split(found[1])
    assert words[:3] == ["bocr-onnx", "prune", DEMO]
    assert words[words.index("--flops") + 1] == "0.5"
    assert words[words.index("--trials") + 1] == "6"
    assert "--int8" in words
    assert "--seed" not in words, "a default is left out"


HOSTILE = "</script><img src=x onerror=alert(1)>\"'&amp;<svg onload=alert(2)>"


def hostile(run: Path, folder: Path) -> Path:
    """Returns a copy of a run in which every text is an attack."""
    shutil.copytree(run, folder)
    record = json.loads((folder / "report.json").read_text())

    def attacked(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: attacked(one) for key, one in value.items()}
        if isinstance(value, list):
            return [attacked(one) for one in value]
        return HOSTILE if isinstance(value, str) else value

    (folder / "report.json").write_text(json.dumps(attacked(record) | {"missed": [HOSTILE]}))
    rows = (folder / "journal.jsonl").read_text().splitlines()
    (folder / "journal.jsonl").write_text("\n".join(json.dumps(attacked(json.loads(r))) for r in rows if r[-1] == "}"))
    (folder / "run.json").write_text(json.dumps(attacked(json.loads((folder / "run.json").read_text()))))
    return folder


def test_no_name_becomes_markup(runs: tuple[Path, Path], tmp_path: Path) -> None:
    page = Words(bocr_onnx.write_report(hostile(runs[0], tmp_path / "h.run")).read_text())
    assert not {"script", "img"} & set(page.tags)
    assert HOSTILE in page.text


def test_without_the_drawing_package_tables_are_open(runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    page = bocr_onnx.write_report(runs[0]).read_text()
    assert "<svg" not in page
    assert page.count("<details open>") == 5


def test_bad_runs_and_places(runs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="readable report"):
        bocr_onnx.write_report(tmp_path)
    for text in ("[1]", "{}", "{broken", '{"model": 3}'):
        (tmp_path / "report.json").write_text(text)
        with pytest.raises(DataError, match=r"report\.json"):
            bocr_onnx.write_report(tmp_path)
    with pytest.raises(OutputError):
        bocr_onnx.write_report(runs[0], output=tmp_path / "no" / "page.html")


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
@pytest.mark.parametrize(("scheme", "width"), [("light", 1000), ("dark", 1000), ("light", 390)])
@pytest.mark.parametrize("attacked", [False, True])
def test_a_browser_opens_it_without_a_request_or_a_message(
    scheme: Any, width: int, attacked: bool, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    from playwright.sync_api import sync_playwright

    path = bocr_onnx.write_report(hostile(runs[0], tmp_path / "h.run") if attacked else runs[0])
    said: list[str] = []
    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"file://{path}")
        shown = [page.locator(f".{name} svg").first.is_visible() for name in ("light", "dark")]
        wide = page.evaluate("document.documentElement.scrollWidth")
        browser.close()
    assert said == []
    assert asked == [f"file://{path}"]
    assert shown == [scheme == "light", scheme == "dark"]
    assert wide <= width


def test_budgets_of_one_run_are_shown_beside_each_other(tmp_path: Path) -> None:
    few: dict[str, Any] = {"data": DIGITS, "score_images": 100, "recovery_images": 100, "final_images": 100}
    bocr_onnx.prune_each(
        DEMO, flops="0.8,0.5", search="uniform", recover="oneshot", history="none", output=tmp_path / "f.onnx", **few
    )
    page = Words(bocr_onnx.write_report(tmp_path / "f.run").read_text())
    assert "Score against cost" in page.text
    assert "slim (flops0.8)" in page.text
    assert "slim (flops0.5)" in page.text
    assert (tmp_path / "f.run" / "report.html").exists()


def test_groups_that_are_alike_join_in_a_tree_that_names_each_once(runs: tuple[Path, Path]) -> None:
    record = json.loads((runs[0] / "report.json").read_text())
    names, joins = [group["name"] for group in record["groups"]], record["search"]["tree"]
    assert len(joins) == len(names) - 1
    spec = charts.tree_chart(names, joins)
    written = spec["layer"][1]["data"]["values"]
    assert sorted(one["name"] for one in written) == sorted(names)
    assert sorted(one["row"] for one in written) == list(range(len(names)))
    ends = [row["distance"] for row in spec["data"]["values"] if row["corner"] == 1]
    assert ends == [join[2] for join in joins]
    page = Words(bocr_onnx.write_report(runs[0]).read_text())
    assert f"all {len(joins)} joins" in page.text
    assert "Groups that are alike" not in Words(bocr_onnx.write_report(runs[1]).read_text()).text


def test_the_time_of_operators_is_told_while_both_files_are_there(runs: tuple[Path, Path], tmp_path: Path) -> None:
    assert "Time in each operator" in bocr_onnx.write_report(runs[0]).read_text()
    shutil.copytree(runs[1], tmp_path / "c.run")
    record = json.loads((tmp_path / "c.run" / "report.json").read_text())
    for other in (str(tmp_path / "gone.onnx"), record["model"]["path"], "a" * 5_000):  # gone, another one, no name
        (tmp_path / "c.run" / "report.json").write_text(json.dumps(record | {"output": other}))
        assert "Time in each operator" not in bocr_onnx.write_report(tmp_path / "c.run").read_text()
    shutil.copy(record["output"], tmp_path / "gone.onnx")  # beside its folder again, whatever path the run knew it by
    assert "Time in each operator" not in bocr_onnx.write_report(tmp_path / "c.run").read_text()
    (tmp_path / "c.run" / "report.json").write_text(json.dumps(record | {"output": "elsewhere/gone.onnx"}))
    assert "Time in each operator" in bocr_onnx.write_report(tmp_path / "c.run").read_text()


def test_what_finetuning_did_is_drawn(runs: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(runs[1], tmp_path / "d.run")
    record = json.loads((tmp_path / "d.run" / "report.json").read_text())
    history = [{"epoch": 0, "loss": None, "score": 0.5}, {"epoch": 1, "loss": 0.3, "score": 0.625}]
    (tmp_path / "d.run" / "report.json").write_text(json.dumps(record | {"finetune": {"history": history}}))
    page = Words(bocr_onnx.write_report(tmp_path / "d.run").read_text())
    assert "Finetuning" in page.text
    assert "0.625" in page.text
