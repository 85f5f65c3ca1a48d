"""The stages that add the slim model in int8, and its files for phones."""

from __future__ import annotations

from dataclasses import replace

from bocr_onnx.devices import open_device
from bocr_onnx.errors import BudgetError
from bocr_onnx.graph import from_proto, save
from bocr_onnx.pipeline.mobile import emit_mobile
from bocr_onnx.pipeline.places import int8_of, mobile_of
from bocr_onnx.pipeline.quantize import KINDS, describe, judge_of, to_int8
from bocr_onnx.pipeline.recover import unseen
from bocr_onnx.pipeline.run import Run

N_CALIBRATION = 100
"""Images that ranges of activations are taken from."""


def add_int8(run: Run) -> Run:
    """Returns the run with its slim model in int8, written beside it, where that is asked for.

    Where int8 costs more than is allowed, a note says so and the float model stays alone.

    Raises:
        DeviceError: The device is lost.
        ModelError: The slim model cannot be quantized.
        OutputError: The file cannot be written.
    """
    if not run.options.int8:
        return run
    assert run.images is not None
    assert run.slim is not None
    judge = judge_of(run.graph, run.images, open_device(run.options.device), run.options.threads)
    try:
        found = to_int8(run.slim.proto, judge, KINDS, run.options.int8_drop / 100, N_CALIBRATION, run.progress)
    except BudgetError as error:
        run.progress.note(error.message)
        return replace(run, int8={"missed": error.message})
    score, _ = unseen(run, found.proto, "Scoring the int8 model on unseen images")
    path = int8_of(run.output)
    save(found.proto, path, external=bool(run.graph.external))
    figures = {"output": str(path), "size_bytes": found.proto.ByteSize(), "accuracy": score}
    return replace(run, int8=figures | describe(found), int8_model=found.proto)


def emit_ort(run: Run) -> Run:
    """Returns the run with the files of a phone, of the model in int8 where there is one, if they are asked for.

    Raises:
        ModelError: ONNX Runtime cannot convert the model.
        OutputError: The files cannot be written.
    """
    if run.options.emit != "ort":
        return run
    assert run.slim is not None
    model, path = (run.slim.proto, run.output) if run.int8_model is None else (run.int8_model, int8_of(run.output))
    graph = from_proto(model, input_shapes=run.graph.input_shapes)
    graph = replace(graph, symbolic=run.graph.symbolic)
    found = emit_mobile(model, graph, mobile_of(run.output), path.stem, "arm")
    return replace(run, mobile=found.as_json())
