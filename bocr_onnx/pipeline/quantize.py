"""A model in int8: both types of activations are tried on the device, and costly operators go back to float.

The faster type that keeps the score wins. Where none does, operators that lose most to rounding go back to floating
point, more and more of them, until one does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from onnx import ModelProto

from bocr_onnx.data import part
from bocr_onnx.deploy import (
    Activations,
    Feeds,
    Int8,
    costly,
    float_kernels,
    prepared,
    quantize,
    tail_of,
    with_neighbours,
)
from bocr_onnx.devices import Device, Latency, Machine, Request
from bocr_onnx.errors import BudgetError
from bocr_onnx.graph import ModelGraph, from_proto, random_feeds
from bocr_onnx.pipeline.agreement import batches_for
from bocr_onnx.pipeline.loaded import Images
from bocr_onnx.progress import Progress
from bocr_onnx.runtime import Outputs, predict_heads

SHARES = (0.05, 0.1, 0.2, 0.4)
"""Shares of the operators with weights that go back to float, one after the other, while the score is missed."""

N_RANKED = 8
"""Images on which operators are ranked by what they lose."""

KINDS: tuple[Activations, ...] = ("uint8", "int8")
VNNI = ("avx512_vnni", "avx_vnni")


@dataclass(frozen=True, slots=True)
class Quantized:
    """An int8 model.

    Attributes:
        proto: The model.
        settings: How it was made.
        n_float: Operators that still multiply in floating point, by kind, in the graph that runs here.
        before: Score of the float model on the images that decide.
        after: Its own score on them.
        latency: Time of a run on the device.
        float_latency: That of the float model, measured in turn.
    """

    proto: ModelProto
    settings: Int8
    n_float: dict[str, int]
    before: float
    after: float
    latency: Latency
    float_latency: Latency


@dataclass(frozen=True, slots=True)
class Judge:
    """What decides: images, the reference, and the device.

    Attributes:
        interface: The model that images and heads belong to.
        images: The images.
        truth: What is scored against on those for the search.
        device: Where latency is measured.
        request: Threads and batch.
    """

    interface: ModelGraph
    images: Images
    truth: Outputs
    device: Device
    request: Request

    def score(self, model: ModelProto) -> float:
        """Returns the score of a model on the images that decide."""
        task = self.images.task
        return task.score(predict_heads(self.interface, model, self.images.score, task.heads), self.truth).value

    def latencies(self, models: Sequence[ModelProto]) -> tuple[Latency, ...]:
        """Returns the latencies of models on the device, measured in turn."""
        protos = [model.SerializeToString() for model in models]
        return self.device.measure(protos, random_feeds(self.interface), self.request).latencies


def judge_of(graph: ModelGraph, images: Images, device: Device, threads: int) -> Judge:
    """Returns what decides for models of a graph: labels, or what the graph's own outputs say."""
    task, labels = images.task, images.split.score.labels
    truth = task.truth(predict_heads(graph, graph.proto, images.score, task.heads), labels)
    batch = 1 if graph.batch_is_symbolic() else graph.batch
    return Judge(graph, images, truth, device, Request(threads, batch))


def to_int8(
    model: ModelProto, judge: Judge, kinds: Sequence[Activations], drop: float, n_images: int, progress: Progress
) -> Quantized:
    """Returns the fastest int8 model that keeps the score.

    Args:
        model: The float model.
        judge: What decides.
        kinds: Types of activations to try.
        drop: What the score may lose, in [0, 1].
        n_images: Images that ranges of activations are taken from.
        progress: Shows the steps.

    Raises:
        BudgetError: None keeps the score.
        DeviceError: The device is lost.
        ModelError: The model cannot be quantized.
    """
    ready = prepared(model)
    graph = from_proto(ready, input_shapes=judge.interface.input_shapes)
    feeds = [feed for feed, _ in batches_for(judge.interface, part(judge.images.recovery, 0, n_images))]
    narrow, tail = saturates(judge.device.check()), tail_of(graph)
    tried = [Int8(kind, narrow, tail) for kind in kinds]
    with progress.task("Quantizing") as update:
        made = []
        for i, settings in enumerate(tried):
            made.append((settings, quantize(ready, feeds, settings)))
            update(i + 1, len(tried))
    before = judge.score(model)
    found = _measured(model, made, before, judge)
    good = [one for one in found if one.after >= before - drop]
    if not good:
        fastest = min(found, key=lambda one: one.latency.median_ms)
        good = _relieved(model, ready, graph, feeds, fastest, drop, judge, progress)
    return min(good, key=lambda one: one.latency.median_ms)


def int8_form(graph: ModelGraph, device: Device, request: Request) -> Callable[[ModelProto], ModelProto]:
    """Returns what makes int8 models for timing: of the activation type that is faster for a graph on the device.

    Ranges of activations are those of random inputs; they change no time.

    Args:
        graph: The original; slim models have its interface.
        device: Where they run.
        request: Threads and batch.

    Raises:
        DeviceError: The device is lost.
        ModelError: The model cannot be quantized.
    """
    feeds, narrow = [random_feeds(graph)], saturates(device.check())

    def made(model: ModelProto, kind: Activations) -> ModelProto:
        ready = prepared(model)
        tail = tail_of(from_proto(ready, input_shapes=graph.input_shapes))
        return quantize(ready, feeds, Int8(kind, narrow, tail))

    protos = [made(graph.proto, kind).SerializeToString() for kind in KINDS]
    times = [one.median_ms for one in device.measure(protos, feeds[0], request).latencies]
    fastest = KINDS[times.index(min(times))]
    return lambda model: made(model, fastest)


def saturates(machine: Machine) -> bool:
    """Returns whether int8 kernels of a machine overflow with eight bits of weight: x86 without VNNI."""
    return machine.architecture in ("x86_64", "AMD64") and not set(machine.flags) & set(VNNI)


def _measured(
    model: ModelProto, made: Sequence[tuple[Int8, ModelProto]], before: float, judge: Judge
) -> list[Quantized]:
    plain, *latencies = judge.latencies([model, *(proto for _, proto in made)])
    return [
        Quantized(proto, settings, float_kernels(proto), before, judge.score(proto), latency, plain)
        for (settings, proto), latency in zip(made, latencies, strict=True)
    ]


def _relieved(
    model: ModelProto, ready: ModelProto, graph: ModelGraph, feeds: Feeds, worst: Quantized, drop: float, judge: Judge,
    progress: Progress,
) -> list[Quantized]:  # fmt: skip
    """Returns the first model that keeps the score with costly operators in floating point.

    Raises:
        BudgetError: Names the best score.
    """
    ranked = costly(ready, worst.proto, feeds[:N_RANKED])
    best = worst.after
    with progress.task("Putting costly operators back to float") as update:
        for i, share in enumerate(SHARES):
            names = with_neighbours(graph, ranked[: max(1, round(share * len(ranked)))])
            settings = replace(worst.settings, left=worst.settings.left | names)
            proto = quantize(ready, feeds, settings)
            score = judge.score(proto)
            update(i + 1, len(SHARES))
            if score >= worst.before - drop:
                return _measured(model, [(settings, proto)], worst.before, judge)
            best = max(best, score)
    raise BudgetError(
        f"int8 must keep the score within {100 * drop:g} points of {worst.before:.2%}, got {best:.2%} at best; "
        "the float model stays",
        hint="Allow more with `max_drop`, or finetune the model first.",
    )


def describe(one: Quantized) -> dict[str, object]:
    """Returns how an int8 model was made, as a report holds it."""
    settings = one.settings
    return {
        "activations": settings.activations,
        "reduce_range": settings.narrow,
        "left_in_float": sorted(settings.left),
        "float_kernels": one.n_float,
        "score_before": one.before,
        "score_after": one.after,
    }
