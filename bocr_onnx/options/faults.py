"""What a validator found wrong becomes a usage error that names the option and what it must be."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bocr_onnx.errors import UsageError, did_you_mean, shortened

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

RANGES = {
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "finite_number": "a finite number",
}
KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "string": "a text", "path": "a path"}


def usage_error(errors: Sequence[ErrorDetails], names: Sequence[str]) -> UsageError:
    """Returns the usage error of the first fault.

    Args:
        errors: As the validator lists them.
        names: Options of the record.
    """
    error = errors[0]
    name, kind = str(error["loc"][0]) if error["loc"] else "", error["type"]
    if kind == "unexpected_keyword_argument":
        return UsageError(f"unknown option `{name}`", hint=did_you_mean(name, names))
    if kind == "unexpected_positional_argument":
        return UsageError("options must be given by name, got a further one by position")
    if kind == "value_error":
        return UsageError(f"`{name}` {error['ctx']['error']}")
    if kind.startswith("missing"):
        return UsageError(f"`{name}` must be given")
    value: Any = error["input"]
    choices = re.findall(r"'([^']*)'", str(error.get("ctx", {}).get("expected", "")))
    hint = did_you_mean(value, choices) if choices and isinstance(value, str) else ""
    shown = value if isinstance(value, str) and kind in RANGES and len(value) < 60 else shortened(value)
    return UsageError(f"`{name}` must be {_condition(error, choices)}, got {shown}", hint=hint)


def _condition(error: ErrorDetails, choices: Sequence[str]) -> str:
    kind, values = error["type"], error.get("ctx", {})
    if choices:
        return " or ".join(filter(None, (", ".join(choices[:-1]), choices[-1])))
    if kind in RANGES:
        return RANGES[kind].format(**values)
    return next((text for name, text in KINDS.items() if kind.startswith(name)), str(error["msg"]))
