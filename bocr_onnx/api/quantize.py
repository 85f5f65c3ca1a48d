"""A model in int8, on its own."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bocr_onnx.devices import Speedup, open_device, speedup
from bocr_onnx.errors import UsageError
from bocr_onnx.graph import check_writable, save
from bocr_onnx.options import QuantizeOptions, keywords
from bocr_onnx.pipeline.images import open_pools
from bocr_onnx.pipeline.loaded import load_parts
from bocr_onnx.pipeline.outputs import check_outputs
from bocr_onnx.pipeline.places import int8_of
from bocr_onnx.pipeline.quantize import KINDS, describe, judge_of, to_int8
from bocr_onnx.pipeline.sized import read_for_images
from bocr_onnx.progress import shown
from bocr_onnx.runtime import predict_heads


@dataclass(frozen=True, slots=True)
class Int8Result:
    """What quantizing a model gave.

    Attributes:
        model: The float file.
        output: The int8 file.
        metric: What a score means.
        n_images: Unseen images that scores are of.
        before: Score of the float model on them.
        after: Score of the int8 model.
        sizes_bytes: Sizes of both files.
        latencies_ms: Median times of both on the device.
        speedup: How many times faster the int8 model is.
        device: Where.
        made: How: type of activations, what stays in float, scores on the images that decided.
    """

    model: str
    output: str
    metric: str
    n_images: int
    before: float
    after: float
    sizes_bytes: tuple[int, int]
    latencies_ms: tuple[float, float]
    speedup: Speedup
    device: str
    made: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Returns what ``bocr-onnx quantize --json`` prints."""
        return {"schema": 1, **asdict(self)}


@keywords(QuantizeOptions)
def quantize(options: QuantizeOptions) -> Int8Result:
    """Writes a model in int8 that keeps its score, the fastest on a device.

    Args: from the record.

    Raises:
        BocrError: Model, images or device cannot be used, or int8 costs more than is allowed.

    Example:
        >>> from importlib.resources import files
        >>> folder, place = files("bocr_onnx.calibration"), __import__("tempfile").mkdtemp()
        >>> found = quantize(str(folder / "demo.onnx"), data=str(folder / "digits.npz"), output=place + "/int8.onnx")
        >>> found.sizes_bytes[1] < 0.5 * found.sizes_bytes[0]
        True
    """
    progress = shown(options.progress)
    pools = open_pools(options.task, options.data)
    sample = pools.train or pools.single
    assert sample is not None
    graph = read_for_images(
        options.model, lambda: (pools, sample), options.preprocessing, options.input_shapes, note=progress.note
    )
    path = check_writable(_output(options))
    check_outputs(graph, path, ())
    images = load_parts(graph, pools, options)
    kinds = KINDS if options.activations == "auto" else (options.activations,)
    with closing(open_device(options.device)) as device:
        judge = judge_of(graph, images, device, options.threads)
        found = to_int8(graph.proto, judge, kinds, options.max_drop / 100, options.calibration_images, progress)
    with progress.task("Scoring on unseen images") as update:
        outputs = predict_heads(graph, found.proto, images.final, images.task.heads, progress=update)
    save(found.proto, path, external=bool(graph.external))
    size = sum(p.stat().st_size for p in (graph.path, *graph.external)) if graph.path else graph.proto.ByteSize()
    return Int8Result(
        model=graph.label,
        output=str(path),
        metric=images.metric,
        n_images=len(images.final),
        before=images.baseline,
        after=images.task.score(outputs, images.final_truth).value,
        sizes_bytes=(size, found.proto.ByteSize()),
        latencies_ms=(found.float_latency.median_ms, found.latency.median_ms),
        speedup=speedup(found.float_latency, found.latency),
        device=options.device,
        made=describe(found),
    )


def _output(options: QuantizeOptions) -> Path:
    if options.output is not None:
        return Path(options.output)
    if not isinstance(options.model, (str, Path)):
        raise UsageError("`output` must be given for a model in memory")
    return int8_of(Path(options.model))
