"""Latency as a budget: some policies are timed before the search, its finalists after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import ModelProto

from bocr_onnx.cost import LATENCY, LatencyModel, Prunable, Widths
from bocr_onnx.devices import Device, Request, fit_latency, open_device
from bocr_onnx.errors import BudgetError
from bocr_onnx.graph import random_feeds
from bocr_onnx.pipeline.quantize import int8_form
from bocr_onnx.pipeline.run import Run
from bocr_onnx.progress import Progress, Update
from bocr_onnx.search import Budget, SearchSpace
from bocr_onnx.slimming import Mask, cut

N_POLICIES = 40
"""Policies that are timed; half as many predict worse (docs/latency.md)."""

LEAST_RATIO = 0.2
SECONDS_EACH = 0.25
PER_SLICE, SLICE_BYTES = 6, 1 << 27
"""Policies that are measured in turn at once, beside the original: more would push each other's weights out of caches,
and the time of a model alone is what counts."""

FINAL_SECONDS_EACH = 1.0
MAX_CORRECTIONS = 3
ABOVE, BELOW = 1.01, 0.97
"""Measured over asked share within which a finalist is on its budget."""


Form = Callable[[ModelProto], ModelProto]
"""From a model to what the device will run of it."""


def as_it_is(model: ModelProto) -> ModelProto:
    """Returns the model: what runs is in floating point."""
    return model


def timed(
    model: Prunable, space: SearchSpace, device: Device, request: Request, seed: int, progress: Progress,
    form: Form = as_it_is,
) -> Prunable:  # fmt: skip
    """Returns a model whose cost has the latency of its policies on a device.

    Args:
        model: The model.
        space: Policies to draw from.
        device: Where they are timed.
        request: Threads and batch.
        seed: Seed of the draw.
        progress: Shows the timing.
        form: What runs of a policy's model, and of the original.

    Raises:
        DeviceError: The device is lost.
        ModelError: A policy has no such form.
    """
    policies = [space.full, *_drawn(space, seed)]
    with progress.task(f"Timing {len(policies) - 1} policies on {device.name}") as update:
        times = time_policies(model, policies, device, request, SECONDS_EACH, update, form)
    return replace(model, cost=fit_latency(model.cost, policies, times))


def _drawn(space: SearchSpace, seed: int) -> list[Widths]:
    """Returns random policies: each at a level of its own, half of its groups anywhere."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(N_POLICIES):
        level = rng.uniform(LEAST_RATIO, 1.0)
        loose = rng.random(len(space.choices)) < 0.5
        near = space.snap(np.full((1, len(space.choices)), level))[0]
        anywhere = np.array([rng.choice(choice) for choice in space.choices], dtype=np.int64)
        found.append(np.where(loose, anywhere, near))
    return found


def time_policies(
    model: Prunable, policies: Sequence[Widths], device: Device, request: Request, seconds: float, update: Update,
    form: Form = as_it_is,
) -> list[float]:  # fmt: skip
    """Returns the time of policies in ms, the first of which is the original.

    They are measured in slices, each in turn with the original; what differs between slices is taken out by it.

    Args:
        model: The model.
        policies: Widths of each.
        device: Where.
        request: Threads and batch.
        seconds: Time to spend on each, in s.
        update: Told after each slice.
        form: What runs of a policy's model, and of the original.
    """
    original = form(model.graph.proto).SerializeToString()
    feeds = random_feeds(model.graph)
    per_slice = max(1, min(PER_SLICE, SLICE_BYTES // max(len(original), 1)))
    times: list[float] = []
    rest = list(policies[1:])
    for start in range(0, len(rest), per_slice):
        part = rest[start : start + per_slice]
        slim = (cut(model.index, _mask(model, widths)) for widths in part)
        protos = [original, *(form(proto).SerializeToString() for proto in slim)]
        asked = replace(request, budget_s=seconds * len(protos))
        measured = device.measure(protos, feeds, asked).latencies
        times = times or [measured[0].median_ms]
        times += [times[0] * one.median_ms / measured[0].median_ms for one in measured[1:]]
        update(min(start + per_slice, len(rest)), len(rest))
    return times


def _mask(model: Prunable, widths: Widths) -> Mask:
    """Returns the mask that keeps the first channels of every group: which ones they are changes no time."""
    mask = np.zeros(int(model.cost.full.sum()), dtype=bool)
    for group, width in zip(model.index.groups, widths, strict=True):
        mask[group.span.start : group.span.start + int(width)] = True
    return mask


def settle(run: Run) -> Run:
    """Returns the run with finalists that keep their latency budget as measured, not as predicted.

    Those that do not are projected anew onto a budget that is corrected by what was measured.

    Raises:
        BudgetError: All of them are slower than the original, and nobody forces them to be written.
        DeviceError: The device is lost; the trials are in the journal.
    """
    target = run.projection.budget.shares.get(LATENCY.name)
    if target is None:
        return run
    device, request = open_device(run.options.device), Request(run.options.threads)
    form = int8_form(run.graph, device, request) if run.options.int8 else as_it_is
    full, finalists, rows = run.cost.full, list(run.result.finalists), []
    bounds, shares = [target] * len(finalists), [0.0]
    with run.progress.task(f"Timing finalists on {device.name}") as update:
        for number in range(MAX_CORRECTIONS + 1):
            policies = [full, *finalists]
            times = time_policies(run.model, policies, device, request, FINAL_SECONDS_EACH, lambda *_: None, form)
            shares = [time / times[0] for time in times[1:]]
            predicted = [float(LATENCY.share(run.cost, widths)) for widths in finalists]
            rows = [_row(p, s) for p, s in zip(predicted, shares, strict=True)]
            off = [i for i, share in enumerate(shares) if not BELOW <= share / target <= ABOVE]
            update(number + 1, MAX_CORRECTIONS + 1)
            if number == MAX_CORRECTIONS or not off:
                break
            for i in off:
                bounds[i] *= target / shares[i]
                finalists[i] = _projected(run, bounds[i], finalists[i])
    if min(shares) >= 1 and not run.options.force:
        raise BudgetError(
            f"`latency={target:g}` must be reachable on {device.name}; as measured, finalists take "
            f"{min(shares):.2f} of the original's time or more",
            hint="A coarser channel grid may help: `round_to=16`. `force` writes one all the same.",
        )
    result = replace(run.result, finalists=tuple(finalists))
    return replace(run, result=result, latency={**run.latency, "finalists": rows})


def _projected(run: Run, bound: float, widths: Widths) -> Widths:
    """Returns the policy next to a finalist that a corrected bound allows."""
    budget = run.projection.budget
    corrected = Budget({**budget.shares, LATENCY.name: min(max(bound, 1e-3), 1 - 1e-9)})
    if corrected.use(run.cost, run.projection.space.low[None])[0] > 1:
        return run.projection.space.low
    return replace(run.projection, budget=corrected).execute(widths / run.projection.space.full)


def _row(predicted: float, measured: float) -> dict[str, Any]:
    return {"predicted": predicted, "measured": measured, "error": predicted / measured - 1}


def shares_of(latencies: Sequence[float | str], found: LatencyModel) -> tuple[float, ...]:
    """Returns latencies as shares of the original's: ``8ms`` is one of a device.

    Args:
        latencies: Shares, or milliseconds as texts.
        found: Has the original's.
    """
    return tuple(float(one.removesuffix("ms")) / found.full_ms if isinstance(one, str) else one for one in latencies)
