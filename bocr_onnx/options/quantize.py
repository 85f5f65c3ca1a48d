"""Options of `quantize`."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field

from bocr_onnx.options.commands import ImageOptions
from bocr_onnx.options.record import Flag, record
from bocr_onnx.options.types import DATA, LIMITS, MACHINES, Count, Data, DeviceName, FinalImages, Place, Seed

MaxInt8Drop = Annotated[
    float,
    Field(ge=0, lt=100),
    Flag("Most points of score that int8 may cost; costly operators go back to float.", LIMITS, metavar="POINTS"),
]
CalibrationImages = Annotated[Count, Flag("Number of images that ranges of activations are taken from.", DATA)]


@record
class QuantizeOptions(ImageOptions):
    """Options of ``quantize``."""

    data: Data = field(kw_only=False)
    output: Annotated[Place, Flag("The int8 file; <model>_int8.onnx by default.", letter="-o")] = None
    activations: Annotated[
        Literal["auto", "uint8", "int8"], Flag("Type of activations; auto measures both on `device`.")
    ] = "auto"
    max_drop: MaxInt8Drop = 1.0
    calibration_images: CalibrationImages = 100
    score_images: Annotated[Count, Flag("Number of images that decide what goes back to float.", DATA)] = 2_000
    final_images: FinalImages = 10_000
    seed: Annotated[Seed, Flag("Random seed of the division of images.", DATA)] = 0
    device: DeviceName = "host"
    threads: Annotated[int, Field(ge=0, le=1_024), Flag("Threads of a run; 0 means one per core.", MACHINES)] = 1
    memory: Annotated[float, Field(ge=0.01, le=65_536), Flag("Memory limit for images, in GiB.", MACHINES)] = 2.0

    @property
    def n_images(self) -> dict[str, int]:
        """Returns the sizes of the parts that images are divided into, as `bocr_onnx.data.split` takes them."""
        return {
            "n_score": self.score_images, "n_recovery": self.calibration_images, "n_final": self.final_images,
        }  # fmt: skip

    @property
    def memory_bytes(self) -> int:
        """Returns what images may take together."""
        return int(self.memory * 2**30)
