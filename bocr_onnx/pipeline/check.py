"""A model against limits, one criterion after the other; one that cannot be measured does not stop the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bocr_onnx.cost import QUANTITIES, prunable
from bocr_onnx.devices import Request, open_device, speedup, typical
from bocr_onnx.errors import BocrError, ProofError
from bocr_onnx.graph import ModelGraph, load, random_feeds
from bocr_onnx.groups import build_index
from bocr_onnx.options import CheckOptions
from bocr_onnx.pipeline.model import interface_of, read_model
from bocr_onnx.progress import shown
from bocr_onnx.report.verdict import Criterion, Verdict
from bocr_onnx.runtime import run_once
from bocr_onnx.slimming import check_runs, prove_structure, read_plan

if TYPE_CHECKING:
    from bocr_onnx.pipeline.scored import Scored
    from bocr_onnx.runtime import Outputs

Check = Callable[[], Criterion]


@dataclass(slots=True)
class Subject:
    """What is checked.

    Attributes:
        options: The limits.
        graph: The model.
        original: What it is compared with; None without.
    """

    options: CheckOptions
    graph: ModelGraph
    original: ModelGraph | None


def check_all(options: CheckOptions) -> tuple[Criterion, ...]:
    """Returns every criterion that was asked for, first of all whether the model runs.

    Args:
        options: The limits.

    Raises:
        BocrError: The original cannot be used.
    """
    progress = shown(options.progress)
    original = None
    if options.against is not None:
        original = read_model(options.against, options.input_shapes, note=progress.note)
    found: list[Criterion] = []
    subject: Subject | None = None

    def opened() -> Criterion:
        nonlocal subject
        subject = Subject(options, _opened(options, original), original)
        return Criterion("runs", "passed", detail=f"ONNX Runtime runs it on {', '.join(subject.graph.inputs)}")

    found.append(_timed("runs", opened))
    checks = () if subject is None else tuple(_checks(subject))
    with progress.task(f"Checking {options.model}") as update:
        for i, (name, check) in enumerate(checks):
            update(i, len(checks), name)
            found.append(_timed(name, check))
    return tuple(found)


def _opened(options: CheckOptions, original: ModelGraph | None) -> ModelGraph:
    """Returns the model, at the sizes that its original runs with where its own leave a choice."""
    assert isinstance(options.model, (str, Path))
    if original is None:
        return read_model(options.model, options.input_shapes, note=shown(options.progress).note)
    try:
        graph = load(options.model, {name: original.shapes[name] for name in original.inputs})
    except BocrError:  # other inputs: the criterion "interface" says so
        return read_model(options.model, options.input_shapes)
    check_runs(graph, random_feeds(replace(graph, fills=original.fills)), run_once)
    return graph


def _timed(name: str, check: Check) -> Criterion:
    """Returns a criterion with its seconds; what cannot be measured is an error of it alone."""
    start = time.monotonic()
    try:
        found = check()
    except BocrError as error:
        hint = f" ({error.hint})" if error.hint else ""
        found = Criterion(name, "error", detail=f"{error.message}{hint}")
    return replace(found, seconds=round(time.monotonic() - start, 3))


def _checks(subject: Subject) -> Iterator[tuple[str, Check]]:
    options = subject.options
    if subject.original is not None:
        yield "interface", lambda: _interface(subject)
    if options.plan is not None:
        yield "proof", lambda: _proof(subject)
    for name in QUANTITIES:
        limit = getattr(options, f"max_{name}")
        if limit is not None:
            yield f"max-{name}", partial(_cost, subject, name, limit)
    if options.min_score is not None or options.max_drop is not None:
        yield from _scores(subject)
    if options.max_latency is not None:
        yield "max-latency", lambda: _latency(subject)


def _interface(subject: Subject) -> Criterion:
    assert subject.original is not None
    if _is_alike(subject):
        return Criterion("interface", "passed", detail="the inputs and outputs of the original")
    own, wanted = interface_of(subject.graph), interface_of(subject.original)
    return Criterion("interface", "failed", detail=f"it has {own}; the original has {wanted}")


def _proof(subject: Subject) -> Criterion:
    assert subject.original is not None
    assert subject.options.plan is not None
    index = build_index(subject.original)
    plan = read_plan(Path(subject.options.plan), index, strict=False)
    try:
        proof = prove_structure(index, plan.mask(index), subject.graph.proto, run_once)
    except ProofError as error:
        return Criterion("proof", "failed", detail=error.message)
    return Criterion(
        "proof", "passed", f"{proof.tolerance:.0e}", f"{proof.max_rel_diff:.1e}", "equal to the masked original",
        proof.max_rel_diff, proof.tolerance,
    )  # fmt: skip


def _cost(subject: Subject, name: str, limit: float) -> Criterion:
    """Returns how a quantity stands to a limit: of the files where it is their size."""
    quantity = QUANTITIES[name]

    def total(graph: ModelGraph) -> float:
        if name == "size" and graph.path is not None:
            return float(sum(path.stat().st_size for path in (graph.path, *graph.external)))
        return float(quantity.of(prunable(graph).cost))

    value, unit = total(subject.graph), f" {quantity.unit}".rstrip()
    whole = None if subject.original is None else total(subject.original)
    if limit > 1:
        shown = f"{value:,.0f}{unit}" + (f" ({value / whole:.1%})" if whole else "")
        return _above(f"max-{name}", value, limit, f"{limit:,.0f}{unit}", shown)
    assert whole is not None
    share = value / whole if whole else 0.0
    return _above(f"max-{name}", share, limit, f"{limit:.1%}", f"{share:.1%} ({value:,.0f} of {whole:,.0f}{unit})")


def _above(name: str, value: float, limit: float, bound: str, shown: str) -> Criterion:
    return Criterion(name, "passed" if value <= limit else "failed", bound, shown, "", value, limit)


def _scores(subject: Subject) -> Iterator[tuple[str, Check]]:
    """Yields what is asked of the score; images are read once."""
    options, opened = subject.options, list["Found"]()

    def found() -> Found:
        if not opened:
            opened.append(_found(subject))
        return opened[0]

    def least() -> Criterion:
        scored, value = found().scored, found().score(found().own)
        assert options.min_score is not None
        shown = f"{value:.2%} {scored.metric} on {len(scored.images)} images"
        verdict: Verdict = "passed" if value >= options.min_score else "failed"
        return Criterion("min-score", verdict, f"{options.min_score:.2%}", shown, "", value, options.min_score)

    def drop() -> Criterion:
        scored, before, value = found().scored, found().score(found().first), found().score(found().own)
        assert options.max_drop is not None
        lost = 100 * (before - value)
        shown = f"{lost:.2f} points of {scored.metric} ({before:.2%} to {value:.2%}) on {len(scored.images)} images"
        return _above("max-drop", lost, options.max_drop, f"{options.max_drop:g} points", shown)

    for name, limit, check in (("min-score", options.min_score, least), ("max-drop", options.max_drop, drop)):
        if limit is not None:
            yield name, check if _is_alike(subject) else partial(_unscored, name)


def _is_alike(subject: Subject) -> bool:
    return subject.original is None or interface_of(subject.graph) == interface_of(subject.original)


def _unscored(name: str) -> Criterion:
    return Criterion(name, "failed", detail="not scored, since its inputs or outputs are not those of the original")


@dataclass(frozen=True, slots=True)
class Found:
    """What the model and its original say of the images; the model twice without an original."""

    scored: Scored
    own: Outputs
    first: Outputs

    def score(self, outputs: Outputs) -> float:
        """Returns the score of outputs: against labels, or else what the original says."""
        return self.scored.task.score(outputs, self.scored.truth(self.first)).value


def _found(subject: Subject) -> Found:
    from bocr_onnx.pipeline.scored import open_scored

    options, original = subject.options, subject.original
    assert options.data is not None
    assert isinstance(options.model, (str, Path))
    scored = open_scored(options, options.against or options.model, options.data, labelled=original is None)
    own = scored.outputs(subject.graph)
    return Found(scored, own, own if original is None else scored.outputs(original))


def _latency(subject: Subject) -> Criterion:
    options, limit = subject.options, subject.options.max_latency
    graphs = [subject.graph] if isinstance(limit, str) else [subject.original, subject.graph]
    protos = [graph.proto.SerializeToString() for graph in graphs if graph is not None]
    batch = 1 if subject.graph.batch_is_symbolic() else subject.graph.batch
    request = Request(threads=options.threads, batch=batch, budget_s=options.seconds)
    with closing(open_device(options.device)) as device:
        measured = device.measure(protos, random_feeds(subject.graph), request)
    if isinstance(limit, str):
        bound, (value, low, high) = float(limit.removesuffix("ms")), typical(measured.latencies[0])
        shown, asked = f"{value:.3g} ms ({low:.3g} to {high:.3g})", f"{bound:g} ms"
    else:
        assert limit is not None
        one = speedup(*measured.latencies)
        bound, value, low, high = limit, 1 / one.value, 1 / one.high, 1 / max(one.low, 1e-12)
        shown, asked = f"{value:.3f} of the original's ({low:.3f} to {high:.3f})", f"{bound:g} of it"
    verdict: Verdict = "passed" if high <= bound else "failed" if low > bound else "cannot tell"
    where = f"on {measured.device}, {measured.latencies[0].clock} clock"
    detail = "; ".join([where, *measured.notes])
    return Criterion("max-latency", verdict, asked, shown, detail, value, bound, (low, high))
