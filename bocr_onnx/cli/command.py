"""A subcommand from the record of its options: the flags are made from the record, not written a second time."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import typer

from bocr_onnx.cli.wording import spelled
from bocr_onnx.errors import UsageError
from bocr_onnx.options import PANELS, RENAMED, Option, options_of
from bocr_onnx.progress import Progress
from bocr_onnx.terminal import TerminalProgress

T = TypeVar("T")

JSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]
QUIET = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no notes, only results and errors.")]
VERBOSE = Annotated[bool, typer.Option("--verbose", "-v", help="Show every trial and how long each stage took.")]

METAVARS = {int: "INTEGER", float: "NUMBER", Path: "PATH"}


def command(kind: Callable[..., T]) -> Callable[[Callable[[T, bool], None]], Callable[..., None]]:
    """Returns a decorator that makes a typer command of a function of ``(options, as_json)``.

    Args:
        kind: The record of its options; ``progress`` is shown on the terminal.
    """
    options = sorted(
        (o for o in options_of(kind) if o.flag.typed), key=lambda o: (not o.flag.argument, PANELS.index(o.flag.panel))
    )

    def decorate(function: Callable[[T, bool], None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(*, as_json: bool, quiet: bool, verbose: bool, **typed: Any) -> None:
            if quiet and verbose:
                raise UsageError("one of `quiet` and `verbose` must be given, got both")
            given = {name: value for name, value in typed.items() if value is not None}
            progress: Progress = TerminalProgress(quiet=quiet, verbose=verbose, worded=spelled)
            function(kind(**given, progress=progress), as_json)

        extra = {"as_json": JSON, "quiet": QUIET, "verbose": VERBOSE}
        parameters = [p for o in options for p in _parameters(o)]
        parameters += [_parameter(name, hint, False) for name, hint in extra.items()]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def _parameters(option: Option) -> Iterator[inspect.Parameter]:
    """Yields the parameter of an option, and hidden ones for its old names."""
    yield _parameter(option.name, _hint(option), _default(option))
    for old, new in RENAMED.items():
        flag = f"--{old.replace('_', '-')}"
        if new == option.name and flag != option.spelling:
            yield _parameter(old, Annotated[str | None, typer.Option(flag, hidden=True)], None)


def _parameter(name: str, hint: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def _hint(option: Option) -> Any:
    flag = option.flag
    if flag.argument:
        kind = list[str] if get_origin(option.type) is tuple else str
        return Annotated[kind, typer.Argument(help=flag.help)]
    names = [option.spelling, *([flag.letter] if flag.letter else [])]
    if option.type is bool and option.default:
        names = [f"{option.spelling}/--no-{option.spelling[2:]}"]
    text = f"{flag.help} ({option.range})" if option.range else flag.help
    info = typer.Option(*names, help=text, rich_help_panel=flag.panel or None, metavar=_metavar(option))
    return Annotated[_typed(option), info]


def _typed(option: Option) -> Any:
    if option.type is bool:
        return bool
    if get_origin(option.type) in (tuple, Mapping) or option.default in ((), {}):
        return list[str] | None
    return str if option.required else str | None


def _default(option: Option) -> Any:
    if option.required:
        return inspect.Parameter.empty
    if option.type is bool or option.default is None:
        return option.default
    return None if option.default in ((), {}) else str(option.default)


def _metavar(option: Option) -> str | None:
    if option.flag.metavar or option.type is bool:
        return option.flag.metavar or None
    choices = get_args(option.type)
    if get_origin(option.type) is Literal:
        return "|".join(choices)
    return METAVARS.get(option.type) or ("PATH" if Path in choices else None)
