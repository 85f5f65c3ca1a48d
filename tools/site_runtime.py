"""An extension of the documentation site: functions as they are called, with the options that their records give."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import griffe

RECORD = "Args: from the record."


class Runtime(griffe.Extension):
    """Takes docstring and parameters from the function itself, and names examples as the parser knows them."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Replaces what a decorator has filled in."""
        if func.docstring is None or RECORD not in func.docstring.value:
            return
        module, _, name = func.path.rpartition(".")
        actual = getattr(import_module(module), name)
        func.docstring.value = _renamed(inspect.getdoc(actual) or "")
        func.parameters = griffe.Parameters(
            *(
                griffe.Parameter(
                    one.name,
                    annotation=inspect.formatannotation(one.annotation),
                    kind=griffe.ParameterKind[one.kind.name.lower()],
                    default=None if one.default is one.empty else repr(one.default),
                )
                for one in inspect.signature(actual).parameters.values()
            )
        )

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Renames the section of examples in a docstring."""
        if obj.docstring is not None:
            obj.docstring.value = _renamed(obj.docstring.value)


def _renamed(text: str) -> str:
    return text.replace("\nExample:\n", "\nExamples:\n")
