"""Options of `mobile`."""

from __future__ import annotations

from typing import Annotated, Literal

from bocr_onnx.options.commands import ModelOptions
from bocr_onnx.options.record import Flag, record
from bocr_onnx.options.types import Place


@record
class MobileOptions(ModelOptions):
    """Options of ``mobile``."""

    output: Annotated[Place, Flag("Folder of the .ort file; <model>.mobile by default.", letter="-o")] = None
    platform: Annotated[Literal["arm", "amd64"], Flag("What the .ort file is optimized for.")] = "arm"
    fix_shape: Annotated[
        bool, Flag("Fix open sizes of the inputs, at --input-shape or what the model runs with; batch 1.")
    ] = True
