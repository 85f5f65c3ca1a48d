"""An option is one field of one record: flag, keyword, default, range, choices and help all come from there."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ParamSpec,
    Protocol,
    TypeVar,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from bocr_onnx.errors import UsageError
from bocr_onnx.options.faults import usage_error

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

RENAMED = {
    "strategy": "search",
    "n_score": "score_images",
    "n_recovery": "recovery_images",
    "n_final": "final_images",
    "steps": "rounds",
}
"""Old name -> name; the old ones are understood for one release, as keywords, as hidden flags and in run.json."""


MANY = 1_000_000
"""Upper ends from here on are for machines only: a help page does not name them."""


@dataclass(frozen=True, slots=True)
class Flag:
    """What is known of an option besides its type and its default.

    Attributes:
        help: One sentence.
        panel: Heading of the help page it stands under.
        letter: A short flag, such as ``-o``.
        spelled: The flag, where it is not the name of the field.
        metavar: What stands for the value on the help page.
        argument: Whether the command line takes it by position.
        typed: Whether the command line has it at all.
        stored: Whether run.json keeps it.
        strategy: The one search strategy that reads it; empty for an option of all.
    """

    help: str
    panel: str = ""
    letter: str = ""
    spelled: str = ""
    metavar: str = ""
    argument: bool = False
    typed: bool = True
    stored: bool = True
    strategy: str = ""


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a record.

    Attributes:
        name: The keyword.
        type: Its type, without annotations.
        default: Its default; `dataclasses.MISSING` if it must be given.
        flag: Its help and spelling.
        least: Its least value, and whether that value itself is excluded; None for none.
        most: Its largest value, likewise.
    """

    name: str
    type: Any
    default: Any
    flag: Flag
    least: tuple[float, bool] | None = None
    most: tuple[float, bool] | None = None

    @property
    def spelling(self) -> str:
        """Returns the flag of the command line, ``--score-images``."""
        return self.flag.spelled or f"--{self.name.replace('_', '-')}"

    @property
    def required(self) -> bool:
        """Returns whether the option must be given."""
        return self.default is dataclasses.MISSING

    @property
    def range(self) -> str:
        """Returns the allowed range as ``1 <= x <= 100``; empty where there is none."""
        low = "" if self.least is None else f"{self.least[0]:g} {'<' if self.least[1] else '<='} "
        high = f" {'<' if self.most[1] else '<='} {self.most[0]:g}" if self.most and self.most[0] < MANY else ""
        return f"{low}x{high}" if low or high else ""


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(dataclasses.field,))
def record(cls: type[T]) -> type[T]:
    """Makes a class a frozen record whose fields are checked and keyword-only.

    Raises:
        UsageError: On construction; names the option, what it must be, and the nearest name of an unknown one.

    Example:
        >>> @record
        ... class Options:
        ...     trials: int = 40
        >>> Options(trails=8)
        Traceback (most recent call last):
        ...
        bocr_onnx.errors.UsageError: unknown option `trails`
          Did you mean 'trials'? Known: trials.
    """
    made: Any = checked_dataclass(
        cls, frozen=True, kw_only=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    )
    plain = made.__init__

    @functools.wraps(plain)
    def init(self: Any, *args: Any, **values: Any) -> None:
        try:
            plain(self, *args, **_with_new_names(values, made))
        except ValidationError as error:
            raise usage_error(error.errors(), tuple(f.name for f in dataclasses.fields(made))) from None

    made.__init__ = init
    result: type[T] = made
    return result


def _with_new_names(values: dict[str, Any], kind: Any) -> dict[str, Any]:
    known = {f.name for f in dataclasses.fields(kind)}
    for old, new in RENAMED.items():
        if old in values and old not in known and new in known:
            if new in values:
                raise UsageError(f"one of `{new}` and its old name {old} must be given, got both")
            values[new] = values.pop(old)
    return values


class Command(Protocol[P, T, R]):
    """A function that takes the options of a record as its own arguments; `run` takes the record."""

    run: Callable[[T], R]

    def __call__(self, *args: P.args, **values: P.kwargs) -> R:
        """Runs the command."""
        ...


def keywords(kind: Callable[P, T]) -> Callable[[Callable[[T], R]], Command[P, T, R]]:
    """Returns a decorator that gives a function of a record the fields of that record as its own arguments.

    Args:
        kind: The record; its constructor's signature becomes the function's, for type checkers too.
    """

    def decorate(function: Callable[[T], R]) -> Command[P, T, R]:
        @functools.wraps(function)
        def call(*args: P.args, **values: P.kwargs) -> R:
            return function(kind(*args, **values))

        made: Any = call
        made.run, made.__signature__, made.__annotations__ = function, _signature(kind), {}
        made.__doc__ = _documented(function.__doc__ or "", kind)
        command: Command[P, T, R] = made
        return command

    return decorate


def _signature(kind: Any) -> inspect.Signature:
    """Returns the signature of a record's constructor, its types without annotations."""
    given = inspect.signature(kind).parameters
    return inspect.Signature(
        [
            inspect.Parameter(
                o.name,
                given[o.name].kind,
                default=inspect.Parameter.empty if o.required else o.default,
                annotation=o.type,
            )
            for name in given
            for o in options_of(kind)
            if o.name == name
        ]
    )


def _documented(doc: str, kind: Any) -> str:
    """Returns a docstring with the record's options in the place of the line ``Args: see ...``."""
    lines = [f"        {o.name}: {o.flag.help}" for o in options_of(kind)]
    return doc.replace("    Args: from the record.", "\n".join(["    Args:", *lines]))


def options_of(kind: Any) -> Iterator[Option]:
    """Yields the options of a record in their order."""
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        plain, metadata = _unfold(hints[field.name])
        flag = next((m for m in metadata if isinstance(m, Flag)), None)
        assert flag is not None, f"{kind.__name__}.{field.name} has no help"
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        yield Option(field.name, plain, default, flag, _limit(metadata, "ge", "gt"), _limit(metadata, "le", "lt"))


def _unfold(hint: Any) -> tuple[Any, list[Any]]:
    """Returns a type without annotations, and the annotations."""
    if get_origin(hint) is Annotated:
        inner, *metadata = get_args(hint)
        plain, more = _unfold(inner)
        found = [part for m in metadata for part in (m.metadata if hasattr(m, "metadata") else [m])]
        return plain, [*found, *more]
    return hint, []


def _limit(metadata: list[Any], closed: str, strict: str) -> tuple[float, bool] | None:
    for part in metadata:
        for name in (closed, strict):
            if (value := getattr(part, name, None)) is not None:
                return value, name == strict
    return None


def part(kind: type[T], options: Any) -> T:
    """Returns those options of a larger record that belong to a record it is made of."""
    return kind(**{o.name: getattr(options, o.name) for o in options_of(kind)})


def stored(options: Any) -> dict[str, Any]:
    """Returns what run.json keeps of a record: plain values by name."""
    return {o.name: _plain(getattr(options, o.name)) for o in options_of(type(options)) if o.flag.stored}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)) and not any(hasattr(v, "dtype") or isinstance(v, Mapping) for v in value):
        return [_plain(v) for v in value]
    return value
