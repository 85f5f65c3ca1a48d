"""How fast models are on a device, measured in turn."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bocr_onnx.devices import Device, Measured, Request, Speedup, open_device, speedup
from bocr_onnx.graph import ModelGraph, random_feeds
from bocr_onnx.options import BenchOptions, keywords
from bocr_onnx.pipeline.agreement import Agreement, batches_for, check_agreement, check_outputs
from bocr_onnx.pipeline.model import read_like, read_model
from bocr_onnx.pipeline.scored import Scored, open_scored
from bocr_onnx.progress import shown


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Latencies of models on a device.

    Attributes:
        models: Their files.
        sizes_bytes: Sizes of the files.
        inputs: Shape of every input, by name.
        measured: What the device gave: raw samples, kernels, and what it is.
        speedups: How many times faster each model after the first is than the first.
        agreements: How each model does on images there and here; empty where there were none.
    """

    models: tuple[str, ...]
    sizes_bytes: tuple[int, ...]
    inputs: dict[str, tuple[int, ...]]
    measured: Measured
    speedups: tuple[Speedup, ...]
    agreements: tuple[Agreement, ...] = ()

    def _repr_html_(self) -> str:
        """Returns what a notebook shows."""
        from bocr_onnx.report.notebook import benchmark_html

        return benchmark_html(self.as_json())

    def as_json(self) -> dict[str, Any]:
        """Returns everything as JSON, raw samples included."""
        rows = []
        for i, (model, size, one) in enumerate(
            zip(self.models, self.sizes_bytes, self.measured.latencies, strict=True)
        ):
            row = {"model": model, "size_bytes": size, "median_ms": one.median_ms, "iqr_ms": one.iqr_ms, **asdict(one)}
            row |= {"speedup": asdict(self.speedups[i - 1])} if i else {}
            rows.append(row | ({"agreement": self.agreements[i].record()} if self.agreements else {}))
        return {"device": self.measured.record(), "inputs": self.inputs, "models": rows}


@keywords(BenchOptions)
def bench(options: BenchOptions) -> Benchmark:
    """Returns how fast models with the same inputs are on a device, measured in turn.

    Args: from the record.

    Raises:
        ModelError: A file cannot be used, or has other inputs than the first.
        DeviceError: The device cannot be reached, is lost, or lacks something.

    Example:
        >>> from importlib.resources import files
        >>> demo = str(files("bocr_onnx.calibration") / "demo.onnx")
        >>> found = bench([demo, demo], runs=12)
        >>> 0.5 < found.speedups[0].value < 2
        True
    """
    progress = shown(options.progress)
    device = open_device(options.device)
    scored = None
    if options.data is not None and options.check_images:
        scored = open_scored(options, options.models[0], options.data, at_most=options.check_images)
    graphs = _read(options, None if scored is None else scored.graph)
    feeds = random_feeds(graphs[0])
    batch = 1 if graphs[0].batch_is_symbolic() else graphs[0].batch
    request = Request(
        threads=options.threads, batch=batch, budget_s=options.seconds, runs=options.runs, provider=options.provider,
        pin=options.pin, details=True, labels=tuple(Path(model).name for model in options.models),
    )  # fmt: skip
    models = [graph.proto.SerializeToString() for graph in graphs]
    with closing(device):
        with progress.task(f"Measuring on {device.name}") as update:
            measured = device.measure(models, feeds, request, update)
        agreements = _agreements(device, graphs, scored, request, options)
    first, *others = measured.latencies
    return Benchmark(
        models=tuple(map(str, options.models)),
        sizes_bytes=tuple(Path(model).stat().st_size for model in options.models),
        inputs={name: tuple(feed.shape) for name, feed in feeds.items()},
        measured=measured,
        speedups=tuple(speedup(first, other) for other in others),
        agreements=agreements,
    )


def _agreements(
    device: Device, graphs: Sequence[ModelGraph], scored: Scored | None, request: Request, options: BenchOptions
) -> tuple[Agreement, ...]:
    """Returns how models agree with themselves here: on images where there are any, else on a random input."""
    if not options.check_images or (scored is None and device.name == "host"):
        return ()
    progress = shown(options.progress)
    with progress.task(f"Comparing outputs on {device.name} with those here") as update:
        if scored is None:
            return check_outputs(device, graphs, request, update)
        batches, protos = batches_for(graphs[0], scored.images), [graph.proto for graph in graphs]
        return check_agreement(device, protos, batches, scored.labels, scored.task, request, update)


def _read(options: BenchOptions, first: ModelGraph | None) -> list[ModelGraph]:
    """Returns the models; the first may have been read before, with images."""
    progress, models = shown(options.progress), options.models
    first = first or read_model(models[0], options.input_shapes, note=progress.note)
    return [first, *(read_like(model, first, outputs=False) for model in models[1:])]
