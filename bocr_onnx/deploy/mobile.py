"""For phones: the .ort file that ONNX Runtime Mobile reads, and what NNAPI and CoreML would run of a model."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
from onnx import ModelProto

from bocr_onnx.errors import ModelError
from bocr_onnx.runtime import open_session

Platform = Literal["arm", "amd64"]
Verdict = Literal["yes", "maybe", "no"]

COREML_OPERATORS = "coreml_supported_mlprogram_ops.md"
NNAPI_NOTE = "Android has deprecated NNAPI since version 15"


@dataclass(frozen=True, slots=True)
class Partitions:
    """How an accelerator of phones would divide a model: nodes it takes, in stretches, the CPU the others.

    Attributes:
        provider: ``NNAPI`` or ``CoreML``.
        verdict: Whether it is worth a try, as ONNX Runtime's checker judges: one stretch that holds most nodes.
        n_nodes: Nodes of the model, with constants and norms folded.
        n_supported: Nodes that it takes.
        n_partitions: Stretches of them.
        blocked_by: Operators that it does not take.
        n_open: Nodes that it leaves because of open sizes.
        n_rank: Nodes that it leaves because of too many axes.
    """

    provider: str
    verdict: Verdict
    n_nodes: int
    n_supported: int
    n_partitions: int
    blocked_by: tuple[str, ...]
    n_open: int
    n_rank: int


def with_shapes(model: ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> ModelProto:
    """Returns a copy whose inputs have these sizes and no others."""
    from onnxruntime.tools.onnx_model_utils import make_input_shape_fixed

    made = ModelProto()
    made.CopyFrom(model)
    for name, shape in shapes.items():
        make_input_shape_fixed(made.graph, name, list(shape))
    for output in made.graph.output:  # an open size would contradict what is inferred now
        for dim in output.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.ClearField("dim_param")
    del made.graph.value_info[:]
    return made


def write_ort(model: ModelProto, folder: Path, name: str, platform: Platform) -> tuple[Path, Path]:
    """Returns the .ort file, and the file that lists the operators which a runtime must be built with.

    Args:
        model: The model.
        folder: Where they are written; it is made where it does not exist.
        name: Their name without an ending.
        platform: What optimizations are for.

    Raises:
        ModelError: ONNX Runtime cannot convert it.
    """
    from onnxruntime.tools.convert_onnx_models_to_ort import OptimizationStyle, convert_onnx_models_to_ort

    with tempfile.TemporaryDirectory(prefix="bocr-onnx-") as place, _silent():
        source, made = Path(place) / f"{name}.onnx", Path(place) / "made"
        onnx.save(model, source)
        try:
            convert_onnx_models_to_ort(source, made, [OptimizationStyle.Fixed], target_platform=platform)
        except Exception as error:  # anything that a conversion of any graph may raise
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"the model must be one that ONNX Runtime can convert to .ort, got: {reason}") from error
        operators = (made / f"{name}.required_operators.config").read_text(encoding="utf-8")
        folder.mkdir(parents=True, exist_ok=True)
        ort, config = folder / f"{name}.ort", folder / f"{name}.required_operators.config"
        shutil.copyfile(made / f"{name}.ort", ort)
        config.write_text(operators.replace(f"{made.resolve()}/", ""), encoding="utf-8")
    return ort, config


def partitions_of(model: ModelProto) -> tuple[Partitions, ...]:
    """Returns what NNAPI and CoreML would run of a model; sizes that it leaves open are left to the CPU."""
    from onnxruntime.tools.mobile_helpers import usability_checker

    with tempfile.TemporaryDirectory(prefix="bocr-onnx-") as place, _silent():
        path = Path(place) / "folded.onnx"
        open_session(model, optimized=path, basic=True)
        folded = onnx.shape_inference.infer_shapes(onnx.load(path))
        return (
            _partitions("NNAPI", usability_checker.check_nnapi_partitions(folded, True)),
            _partitions("CoreML", usability_checker.check_coreml_partitions(folded, True, COREML_OPERATORS)),
        )


def _partitions(provider: str, found: Any) -> Partitions:
    verdicts: dict[str, Verdict] = {"YES": "yes", "MAYBE": "maybe"}
    return Partitions(
        provider=provider,
        verdict=verdicts.get(found.suitability().name, "no") if found.num_nodes else "no",
        n_nodes=found.num_nodes,
        n_supported=found.num_supported_nodes,
        n_partitions=found.num_partitions,
        blocked_by=tuple(sorted(op.removeprefix("ai.onnx:") for op in found.unsupported_ops)),
        n_open=found.nodes_unsupported_due_to_dynamic_input,
        n_rank=found.num_unsupported_nodes_due_to_rank,
    )


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keeps what ONNX Runtime's tools print and log from the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # they leave a file to the garbage collector
            yield
    finally:
        logging.disable(before)
