"""Every option stands once: flags, keywords, defaults, ranges and docs come from the same field."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import get_args

import pytest
import typer

import bocr_onnx
from bocr_onnx.cli.main import app
from bocr_onnx.cost import BOUNDS
from bocr_onnx.errors import UsageError
from bocr_onnx.options import COMMANDS, PANELS, RENAMED, TASK_NAMES, FinetuneOptions, PruneOptions, options_of, stored
from bocr_onnx.options.commands import BUDGETS
from bocr_onnx.options.strategies import SearchName
from bocr_onnx.search.strategies import STRATEGIES
from bocr_onnx.tasks import TASKS
from bocr_onnx.tasks.detection import LAYOUTS

NAMED = {kind.__name__.removesuffix("Options").lower(): kind for kind in COMMANDS}
PRESENTATION = {"--json", "--quiet", "-q", "--verbose", "-v", "-h", "--help"}


@pytest.mark.parametrize("name", NAMED)
def test_the_command_line_and_python_have_the_same_options(name: str) -> None:
    options = [o for o in options_of(NAMED[name]) if o.flag.typed]
    command = typer.main.get_command(app).commands[name]
    shown = {
        flag for p in command.params for flag in p.opts if flag.startswith("-") and not getattr(p, "hidden", False)
    }
    flags = {f for o in options if not o.flag.argument for f in (o.spelling, o.flag.letter) if f}
    assert shown - PRESENTATION == flags
    assert {p.name for p in command.params if not p.opts[0].startswith("-")} == {
        o.name for o in options if o.flag.argument
    }
    keywords = inspect.signature(getattr(bocr_onnx, name)).parameters
    assert set(keywords) == {o.name for o in options} | {"progress"}
    for option in options:
        given = keywords[option.name].default
        assert (given is inspect.Parameter.empty) if option.required else given == option.default
        (parameter,) = (p for p in command.params if p.name == option.name)
        assert option.flag.help in parameter.help
        default = parameter.default if isinstance(parameter.default, (bool, type(None))) else str(parameter.default)
        if not option.required:
            assert default in (option.default, str(option.default), None)
        assert f"{option.name}: {option.flag.help}" in getattr(bocr_onnx, name).__doc__
        assert option.flag.panel in PANELS


@pytest.mark.parametrize("name", NAMED)
def test_the_page_of_options_is_the_one_that_the_records_make(name: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "options.md").read_text()
    section = page.split(f"## `bocr-onnx {name}`")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(--[a-z0-9-]+|[A-Z0-9]+)`[^|]*\| ([^|]*) \|", section, re.M))
    options = [o for o in options_of(NAMED[name]) if o.flag.typed]
    assert rows == {o.name.upper() if o.flag.argument else o.spelling: o.flag.help for o in options}


def test_choices_and_budgets_are_those_of_the_registries() -> None:
    assert set(get_args(SearchName)) == set(STRATEGIES)
    assert set(BUDGETS) == set(BOUNDS)
    (minimize,) = (o.type for o in options_of(PruneOptions) if o.name == "minimize")
    assert set(get_args(minimize)) <= set(BOUNDS)
    (layout,) = (o.type for o in options_of(PruneOptions) if o.name == "layout")
    assert set(TASK_NAMES) == {"auto", *TASKS}
    assert set(get_args(layout)) == {"auto", *LAYOUTS}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"trials": 0}, "`trials` must be at least 1, got 0"),
        ({"trials": "0"}, "`trials` must be at least 1, got 0"),
        ({"trials": 10**30}, "`trials` must be at most 1000000"),
        ({"trials": 1.5}, "`trials` must be a whole number, got 1.5"),
        ({"trials": "many"}, "`trials` must be a whole number, got 'many'"),
        ({"memory": float("nan")}, "`memory` must be "),
        ({"search": "borc"}, "`search` must be .*bocr, .* or uniform, got 'borc'\n  Did you mean 'bocr'?"),
        ({"seach": "bocr"}, "unknown option `seach`\n  Did you mean 'search'?"),
        ({"flops": "half"}, "`flops` must be a share or several"),
        ({"round_to": "some"}, "`round_to` must be auto or a whole number"),
        ({"freeze": [1]}, "`freeze` must be patterns"),
        ({"input_shapes": {"x": (1.5,)}}, "the shape of input 'x' must be whole numbers"),
        ({"output_weights": {"y": -1}}, "`output_weights` must be NAME:WEIGHT with a number from 0 up, got y:-1"),
        ({"output_weights": ["y"]}, "`output_weights` must be NAME:WEIGHT with a number from 0 up, got :y"),
        ({"output_weights": ["y:nan"]}, "got y:nan"),
        ({"data": ""}, "`data` must name a file or a folder"),
        ({"race": "perhaps"}, "`race` must be true or false"),
        ({"preset": "a", "preprocess": "b"}, "one of `preset` and `preprocess` must be given, got both"),
    ],
)
def test_a_wrong_value_names_the_option_and_what_it_must_be(given: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as info:
        PruneOptions("model.onnx", **given)
    assert re.search(words, str(info.value)), info.value


def test_what_is_missing_is_named() -> None:
    with pytest.raises(UsageError, match="`teacher` must be given"):
        FinetuneOptions("model.onnx", data="images")
    with pytest.raises(UsageError, match="options must be given by name"):
        PruneOptions("model.onnx", 0.5)


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_old_names_are_understood(old: str, new: str) -> None:
    value = "local" if new == "search" else 7
    assert getattr(PruneOptions("model.onnx", **{old: value}), new) == value
    with pytest.raises(UsageError, match=f"one of `{new}` and its old name {old} must be given, got both"):
        PruneOptions("model.onnx", **{old: value, new: value})


def test_run_json_keeps_plain_values(tmp_path: Path) -> None:
    kept = stored(PruneOptions(tmp_path / "m.onnx", flops=(0.7, 0.5), output=tmp_path / "s.onnx", run_dir=tmp_path))
    assert kept["flops"] == [0.7, 0.5]
    assert kept["model"] == str(tmp_path / "m.onnx")
    assert not kept.keys() & {"run_dir", "resume", "progress"}
    again = PruneOptions(**kept)
    assert stored(again) == kept
    assert again.budgets == ({"flops": 0.7}, {"flops": 0.5})


def test_several_budgets_come_in_order() -> None:
    asked = PruneOptions("model.onnx", flops=(0.3, 0.7), size=0.8)
    assert asked.budgets == ({"flops": 0.7, "size": 0.8}, {"flops": 0.3, "size": 0.8})
    assert asked.part(1, 2, asked.budgets[1], "b.onnx").budgets == ({"flops": 0.3, "size": 0.8},)
    assert [asked.part(i, 3, {"size": 0.5}, "b.onnx").trials for i in range(3)] == [14, 13, 13]
