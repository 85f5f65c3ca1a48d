"""bocr-onnx check."""

from __future__ import annotations

import typer

from bocr_onnx.cli.command import command
from bocr_onnx.cli.output import print_json, print_table
from bocr_onnx.cli.wording import spelled
from bocr_onnx.options import CheckOptions


@command(CheckOptions)
def check(options: CheckOptions, as_json: bool) -> None:
    """Check a model against limits; exit 0 if it keeps them, 1 if it misses one, 2 if one cannot be measured."""
    from bocr_onnx import api

    found = api.check.run(options)
    if as_json:
        print_json(found.as_json())
    else:
        rows = [(c.name, c.verdict, c.value, c.limit) for c in found.criteria]
        print_table("", ("criterion", "verdict", "found", "limit"), rows)
        for criterion in found.criteria:
            if criterion.detail and criterion.verdict != "passed":
                print(f"{criterion.name}: {spelled(criterion.detail)}")
        print(found.headline)
    raise typer.Exit(found.exit_code)
