"""Options of `check`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, PlainValidator

from bocr_onnx.errors import UsageError
from bocr_onnx.options.commands import ImageOptions
from bocr_onnx.options.parse import parse_data, parse_limit, parse_one_latency
from bocr_onnx.options.record import Flag, record
from bocr_onnx.options.types import DATA_FLAG, LIMITS, MACHINES, REPORTS, DataSource, DeviceName, Place

Limit = Annotated[float | None, PlainValidator(parse_limit)]
SHARES = ("max_flops", "max_params", "max_size", "max_latency")


@record
class CheckOptions(ImageOptions):
    """Options of ``check``."""

    against: Annotated[Place, Flag("The original, for shares of it, its score and its interface.")] = None
    plan: Annotated[Place, Flag("Plan of the cut: its proof against the original is repeated.")] = None
    max_flops: Annotated[
        Limit, Flag("Most MACs: share of the original's, or a number such as 200M.", LIMITS, metavar="SHARE|N")
    ] = None
    max_params: Annotated[
        Limit, Flag("Most parameters: share, or a number such as 1.5M.", LIMITS, metavar="SHARE|N")
    ] = None
    max_size: Annotated[Limit, Flag("Largest file: share, or bytes such as 5MB.", LIMITS, metavar="SHARE|BYTES")] = None
    max_latency: Annotated[
        float | str | None,
        PlainValidator(parse_one_latency),
        Flag("Longest time on `device`: share of the original's, or 8ms.", LIMITS, metavar="SHARE|MS"),
    ] = None
    min_score: Annotated[
        float | None, Field(gt=0, lt=1), Flag("Least score on labelled images, in [0, 1].", LIMITS, metavar="SCORE")
    ] = None
    max_drop: Annotated[
        float | None,
        Field(ge=0, lt=100),
        Flag("Most points of score below the original; without labels, of agreement.", LIMITS, metavar="POINTS"),
    ] = None
    strict: Annotated[bool, Flag("A limit that cannot be told counts as missed.", LIMITS)] = False
    data: Annotated[DataSource | None, BeforeValidator(parse_data), DATA_FLAG] = None
    junit: Annotated[Place, Flag("Write JUnit XML here.", REPORTS)] = None
    summary: Annotated[Place, Flag("Append Markdown here, e.g. $GITHUB_STEP_SUMMARY.", REPORTS)] = None
    device: DeviceName = "host"
    threads: Annotated[int, Field(ge=0, le=1024), Flag("Threads of a run; 0 means one per core.", MACHINES)] = 1
    seconds: Annotated[float, Field(gt=0, le=3600), Flag("Time to spend on latency, in s.", MACHINES)] = 10.0

    def __post_init__(self) -> None:
        """Checks that what the limits are compared with is there."""
        super().__post_init__()
        for name in SHARES:
            value = getattr(self, name)
            if self.against is None and not isinstance(value, str) and value is not None and value <= 1:
                raise UsageError(f"`{name}` as a share must have an original, `against`, got none")
        for name in ("min_score", "max_drop"):
            if getattr(self, name) is not None and self.data is None:
                raise UsageError(f"`{name}` must have images, `data`, got none")
        for name in ("max_drop", "plan"):
            if getattr(self, name) is not None and self.against is None:
                raise UsageError(f"`{name}` must have an original, `against`, got none")
