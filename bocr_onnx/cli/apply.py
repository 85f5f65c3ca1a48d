"""bocr-onnx apply."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bocr_onnx.cli.output import InputShape, TerminalProgress, print_json


def apply(
    model: Annotated[
        Path, typer.Argument(help="The .onnx file the plan was made for, or one with the same structure.")
    ],
    plan: Annotated[Path, typer.Argument(help="A plan.json.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The slim file.")],
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse any file other than the one the plan was made for.")
    ] = False,
    input_shape: InputShape = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Cut a model by a plan again, without a search; the weights are the model's own."""
    from bocr_onnx import api

    shapes = api.parse_shapes(input_shape or ())
    applied = api.apply(model, plan, output, strict=strict, input_shapes=shapes, progress=TerminalProgress())
    if as_json:
        print_json(applied.as_json())
        return
    print(
        f"{applied.output}: {applied.result.macs / max(applied.baseline.macs, 1):.1%} of the MACs, "
        f"{applied.result.params / max(applied.baseline.params, 1):.1%} of the parameters; "
        f"equal to the masked original within {applied.proof.max_rel_diff:.1e} relative"
    )
