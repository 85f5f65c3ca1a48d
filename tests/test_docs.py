"""README and docs: every command says whether it runs, and every page has its place in the site."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def run_docs() -> Any:
    spec = importlib.util.spec_from_file_location("run_docs", ROOT / "tools/run_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["run_docs"] = module
    spec.loader.exec_module(module)
    return module


def test_every_command_runs_or_says_why_not(run_docs: Any) -> None:
    blocks = [block for page in run_docs.pages() for block in run_docs.blocks(page)]
    assert [f"{block.page.name}:{block.line}" for block in blocks if not block.is_marked] == []
    assert sum(block.is_run for block in blocks) >= 25


def test_a_reason_must_be_given(run_docs: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- not run: -->\n```bash\nls\n```\ntext\n```python\n1\n```\n<!-- run -->\n```bash\nls\n```\n")
    assert [block.is_marked for block in run_docs.blocks(page)] == [False, False, True]


def test_a_page_stops_where_a_command_fails(run_docs: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = run_docs.ROOT / "docs/made_up.md"
    made = [
        run_docs.Block(page, 1, "bash", code, "<!-- run -->") for code in ("ls given", "false | true", "touch here")
    ]
    (tmp_path / "material").mkdir()
    (tmp_path / "material" / "given").touch()
    assert not run_docs.run_page(made, tmp_path / "material", tmp_path / "work")
    assert "docs/made_up.md:1 FAILED" in capsys.readouterr().out
    assert not (tmp_path / "work" / "here").exists()
    assert run_docs.run_page(made[:1], tmp_path / "material", tmp_path / "again")


def test_every_page_is_in_the_navigation() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert settings["strict"]
    named = set(_paths(settings["nav"]))
    assert named == {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}


def _paths(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [path for part in parts for path in _paths(part)]
