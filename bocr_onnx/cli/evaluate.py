"""bocr-onnx evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bocr_onnx.cli.output import InputShape, TerminalProgress, print_json


def evaluate(
    model: Annotated[Path, typer.Argument(help="The .onnx file.")],
    data: Annotated[str, typer.Option(help="Labelled images; if the folder has a val/, only that part.")],
    preset: Annotated[str | None, typer.Option(help="Preprocessing preset; guessed if not given.")] = None,
    preprocess: Annotated[str | None, typer.Option(help="Preprocessing file (TOML).")] = None,
    input_shape: InputShape = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score a model on labelled images."""
    from bocr_onnx import api

    found = api.evaluate(
        model,
        data,
        preset=preset,
        preprocess=preprocess,
        input_shapes=api.parse_shapes(input_shape or ()),
        progress=TerminalProgress(),
    )
    if as_json:
        print_json(found.as_json())
        return
    print(
        f"{found.model}: top-1 {found.score.value:.2%} (+-{found.score.stderr:.2%}) on {found.n_images} images, "
        f"preprocessing {found.preprocessing}"
    )
