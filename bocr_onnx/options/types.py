"""Options that several commands share: type, range and help, written once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator

from bocr_onnx.options.parse import (
    TASK_NAMES,
    parse_data,
    parse_latencies,
    parse_model,
    parse_place,
    parse_shapes,
    parse_shares,
    parse_task,
    parse_weights,
)
from bocr_onnx.options.record import Flag

if TYPE_CHECKING:
    import numpy.typing as npt
    from onnx import ModelProto

    from bocr_onnx.progress import Progress as ProgressProtocol

    ModelSource = str | Path | ModelProto
    Arrays = npt.NDArray[Any]
    Inputs = Arrays | Mapping[str, Arrays]
    DataSource = str | Path | Inputs | tuple[Inputs, Arrays]
    Shares = float | Sequence[float] | None
    ShapeSource = Mapping[str, Sequence[int]]
    WeightSource = Mapping[str, float]
else:  # checked by our own validators, so that neither onnx nor numpy is loaded for a help page
    ModelSource = DataSource = Shares = ShapeSource = WeightSource = ProgressProtocol = Any

BUDGET, FLOOR, DATA, SEARCH = "Budget", "Floor", "Images", "Search"
RECOVERY, MACHINES = "Recovery and finetuning", "Machines and history"
LOSS, OPTIMIZER, DEVICES = "Loss", "Optimizer", "Devices"
LIMITS, REPORTS = "Limits", "Reports"
STRATEGY = "Options of particular strategies"
PANELS = ("", LIMITS, REPORTS, BUDGET, FLOOR, DATA, SEARCH, RECOVERY, LOSS, OPTIMIZER, DEVICES, STRATEGY, MACHINES)
"""Headings of the help pages in their order; options without one come first."""

MAX_IMAGES, MAX_SEED, MAX_EPOCHS = 100_000_000, 2**32 - 1, 10_000
Place = Annotated[str | Path | None, BeforeValidator(parse_place)]
Count = Annotated[int, Field(ge=1, le=MAX_IMAGES)]

Model = Annotated[ModelSource, BeforeValidator(parse_model), Flag("The .onnx file.", argument=True)]
Share = Annotated[Shares, PlainValidator(parse_shares)]
Latencies = Annotated[Shares | str, PlainValidator(parse_latencies)]
DATA_FLAG = Flag(
    "Images or arrays: a folder, an .npz, an .npy, coco:FILE@FOLDER or torchvision:NAME@ROOT. Labels are optional.",
    DATA,
    metavar="PATH",
)
Data = Annotated[DataSource, BeforeValidator(parse_data), DATA_FLAG]
TaskName = Annotated[
    str,
    AfterValidator(parse_task),
    Flag(
        f"Task of the model, which says what a score means: {', '.join(TASK_NAMES)}, or module:Name for a class of "
        "your own. auto infers it from outputs, names and labels.",
        DATA,
        metavar="NAME",
    ),
]
DeviceName = Annotated[
    str,
    Flag(
        "Where latency is measured: host, ssh://USER@HOST[:PORT], web, web://lan or android[:SERIAL].",
        MACHINES,
        metavar="DEVICE",
    ),
]
CheckImages = Annotated[
    int,
    Field(ge=0, le=MAX_IMAGES),
    Flag("Number of images that also run on the device, to compare outputs and score with this host's.", MACHINES),
]
LayoutName = Annotated[
    Literal["auto", "end2end", "yolo-fastest", "fastestdet", "yolo", "levels", "pair", "queries", "nms", "map"],
    Flag("Layout of a detector's outputs: how boxes are read. auto recognizes it.", DATA),
]
Preset = Annotated[str | None, Flag("Preprocessing preset; guessed if not given.", DATA, metavar="NAME")]
Preprocess = Annotated[Place, Flag("Preprocessing file (TOML).", DATA)]
InputShapes = Annotated[
    ShapeSource,
    PlainValidator(parse_shapes),
    Flag(
        "Sizes for the open axes of an input, e.g. image:1x3x48x320; omit NAME: if there is only one input.",
        spelled="--input-shape",
        metavar="NAME:SIZES",
    ),
]
OutputWeights = Annotated[
    WeightSource,
    PlainValidator(parse_weights),
    Flag(
        "How much the distortion of an output counts beside that of others, 1 by default, e.g. boxes:2.",
        DATA,
        spelled="--output-weight",
        metavar="NAME:WEIGHT",
    ),
]
RunDirectory = Annotated[
    Place, Flag("Directory for checkpoints, plan and report; <output>.run by default.", stored=False)
]
Resume = Annotated[Place, Flag("Run directory to continue.", stored=False)]
FinalImages = Annotated[Count, Flag("Number of unseen images for the reported score.", DATA)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Progress = Annotated[
    ProgressProtocol | None, Flag("Shows long steps; by default in a notebook only.", typed=False, stored=False)
]
