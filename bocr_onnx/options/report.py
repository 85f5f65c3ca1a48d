"""Options of `report`."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator

from bocr_onnx.options.parse import parse_place
from bocr_onnx.options.record import Flag, record
from bocr_onnx.options.types import Place, Progress


@record
class ReportOptions:
    """Options of ``report``."""

    run_dir: Annotated[
        str | Path, BeforeValidator(parse_place), Flag("The folder of a run, <output>.run.", argument=True)
    ] = field(kw_only=False)
    compare: Annotated[Place, Flag("The folder of another run of the same model.", metavar="RUN_DIR")] = None
    output: Annotated[Place, Flag("The page; report.html in the folder by default.", letter="-o")] = None
    progress: Progress = None
