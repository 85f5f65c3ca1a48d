"""The last stages: prove, write, measure, report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from onnx import ModelProto
from PIL import Image

from bocr_onnx.cost import LATENCY, QUANTITIES, CostModel, quantities_of, slim_cost
from bocr_onnx.devices import Request, open_device, speedup
from bocr_onnx.errors import OutputError
from bocr_onnx.graph import ModelGraph, load, random_feeds, save, write_text
from bocr_onnx.pipeline.agreement import batches_for, check_agreement
from bocr_onnx.pipeline.examples import examples
from bocr_onnx.pipeline.inspection import inspect_graph, refusal_records
from bocr_onnx.pipeline.loaded import Images
from bocr_onnx.pipeline.quantize import int8_form
from bocr_onnx.pipeline.run import Run, Slim
from bocr_onnx.pipeline.search import pose
from bocr_onnx.report import Figures, GroupFigures, Report, markdown
from bocr_onnx.runtime import run_once
from bocr_onnx.search import Budget, Prior, TrialState, cluster_tree
from bocr_onnx.slimming import plan_of_mask, prove_cut, prove_structure, write_plan

COUNT_SLACK, LATENCY_SLACK = 1.001, 1.03
"""Kept over asked share from which a bound is missed."""

QUALITY = 85
"""Quality of the JPEGs that show what models find, 1 to 95."""


def prove(run: Run) -> Run:
    """Returns the run with the proof of its slim model.

    Raises:
        ProofError: The slim model differs from the masked original.
    """
    slim = _slim(run)
    with run.progress.task("Proving the cut") as update:
        cut = run.index, slim.mask, slim.proto, run_once
        proof = prove_structure(*cut) if slim.weights is None else prove_cut(*cut, weights=slim.weights)
        update(1, 1)
    return replace(run, proof=proof)


def write(run: Run) -> Run:
    """Returns the run with its plan and its slim model written, and with the cost that is counted on that model.

    Raises:
        OutputError: A file cannot be written.
    """
    slim = _slim(run)
    write_plan(run.run_dir.plan, run.index, plan_of_mask(run.index, slim.mask))
    save(slim.proto, run.output, external=bool(run.graph.external))
    return replace(run, after=slim_cost(slim.proto, run.graph))


def benchmark(run: Run) -> Run:
    """Returns the run with the latency of both models, and with how they agree on a device with themselves here."""
    options, slim = run.options, _slim(run).proto
    with run.progress.task("Measuring latency") as update:
        further = _in_int8(run)
        latency = measure_latency(run.graph, slim, *further, threads=options.threads, device=options.device)
        update(1, 1)
    images, n = run.images, options.check_images
    if options.device == "host" or images is None or not n:
        return replace(run, latency={**run.latency, **latency})
    final, labels = images.final[:n], images.split.final.labels
    labels = None if labels is None else labels[:n]
    device, request = open_device(options.device), Request(options.threads)
    with run.progress.task(f"Running {len(final)} images on {options.device}") as update:
        found = check_agreement(
            device, (run.graph.proto, slim), batches_for(run.graph, final), labels, images.task, request, update
        )
    agreement = dict(zip(("baseline", "result"), (one.record() for one in found), strict=True))
    return replace(run, latency={**run.latency, **latency, "agreement": agreement})


def _in_int8(run: Run) -> tuple[ModelProto, ...]:
    """Returns the slim model in int8, and where latency was bounded the original: they are what its bound speaks of."""
    if run.int8_model is None:
        return ()
    if not run.options.bounds_latency:
        return (run.int8_model,)
    form = int8_form(run.graph, open_device(run.options.device), Request(run.options.threads))
    return run.int8_model, form(run.graph.proto)


def report(run: Run) -> Run:
    """Returns the run with its report, written beside the plan.

    Raises:
        OutputError: A file cannot be written.
    """
    made = _report(run)
    for number, picture in enumerate(examples(run), start=1):
        _save_picture(picture, run.run_dir.example(number))
    write_text(run.run_dir.report_json, made.dumps())
    write_text(run.run_dir.report_md, markdown(made))
    return replace(run, report=made)


def _save_picture(picture: Image.Image, path: Path) -> None:
    try:
        picture.save(path, quality=QUALITY)
    except OSError as error:
        raise OutputError(f"{path} must be writable, got {error.strerror or error}") from error


def _slim(run: Run) -> Slim:
    assert run.slim is not None
    return run.slim


def measure_latency(
    graph: ModelGraph, slim: ModelProto, *further: ModelProto, threads: int, device: str = "host"
) -> dict[str, Any]:
    """Returns the latency of original and slim model, interleaved, as a report holds it.

    Args:
        graph: The original.
        slim: The slim model.
        further: The slim model in int8, and the original in int8, if there are any.
        threads: Intra-op threads, 0 for one per core.
        device: Where.

    Returns:
        ``device`` (what it is), ``speedup`` (with its interval), ``clock`` (``cpu`` or ``wall``), median, IQR and
        samples in ms by that clock, raw samples in ms by both clocks, ``threads`` and ``batch`` (1, or what the model
        fixes); of the model in int8 too, with ``int8_speedup``.
    """
    feeds = random_feeds(graph)
    models = [proto.SerializeToString() for proto in (graph.proto, slim, *further)]
    batch = 1 if graph.batch_is_symbolic() else graph.batch
    labels = ("original", "slim model", "slim model, int8", "original, int8")[: len(models)]
    measured = open_device(device).measure(models, feeds, Request(threads, batch, labels=labels))
    before, *others = measured.latencies
    speedups = [asdict(speedup(before, other)) for other in others]
    record: dict[str, Any] = {
        "device": measured.record(),
        "threads": threads,
        "batch": before.batch,
        "clock": before.clock,
        **dict(zip(("speedup", "int8_speedup"), speedups, strict=False)),
    }
    for name, one in zip(("baseline", "result", "int8", "baseline_int8"), measured.latencies, strict=False):
        record |= {
            f"{name}_median_ms": one.median_ms,
            f"{name}_iqr_ms": one.iqr_ms,
            f"{name}_samples_ms": _rounded(one.samples_ms),
            f"{name}_wall_ms": _rounded(one.wall_ms),
            f"{name}_cpu_ms": _rounded(one.cpu_ms),
        }
    return record


def _rounded(samples_ms: tuple[float, ...]) -> list[float]:
    return [round(sample, 5) for sample in samples_ms]


def _report(run: Run) -> Report:
    slim, images, proof, after = _slim(run), run.images, run.proof, run.after
    assert proof is not None
    assert after is not None
    inspection = inspect_graph(run.model)
    baseline, kept = None if images is None else images.baseline, quantities_of(after) | {"size_bytes": _file_size(run)}
    milliseconds = [run.latency.get(f"{name}_median_ms") for name in ("baseline", "result")]
    return Report(
        model={"path": run.graph.label, "sha256": run.graph.sha256},
        output=str(run.output),
        target=dict(run.projection.budget.shares),
        baseline=Figures(quantities_of(run.cost), baseline, milliseconds[0]),
        result=Figures(kept, slim.after, milliseconds[1]),
        accuracy_before_finetune=slim.before,
        metric="" if images is None else images.metric,
        search=search_record(run),
        proof=asdict(proof) | {"passed": proof.passed},
        data={} if images is None else _images_record(images),
        refusals=refusal_records(inspection),
        groups=tuple(
            GroupFigures(g.name, g.n_channels, int(slim.mask[g.span].sum()), share, error)
            for g, share, error in zip(run.index.groups, inspection.shares, _errors(run), strict=True)
        ),
        latency=dict(run.latency),
        finetune=dict(slim.finetune),
        task="" if images is None else images.task.name,
        outputs=tuple(map(dict, slim.outputs)),
        missed=(*_missed(run.projection.budget, run.cost, after, run.latency), *_missed_int8(run)),
        int8=_int8(run),
        mobile=dict(run.mobile),
        versions={
            "version": version("bocr-onnx"),
            "onnx": version("onnx"),
            "onnxruntime": version("onnxruntime"),
        },
        seconds=dict(run.seconds),
        output_sha256=load(run.output).sha256,
    )


def _tree(run: Run) -> list[list[float]]:
    """Returns the joins of the tree that the search's clusters are cut from: two clusters, their distance, the size."""
    return [[round(value, 4) for value in join] for join in cluster_tree(pose(run, Prior())).tolist()]


def _errors(run: Run) -> list[float | None]:
    """Returns what the output loses with half of each group, in one shot; None without images to measure on."""
    if run.scorer is None:
        return [None] * len(run.index.groups)
    curves = run.scorer.calibration.sensitivity.curves
    return [float(curve[len(curve) // 2]) for curve in curves]


def _images_record(images: Images) -> dict[str, Any]:
    return images.split.describe() | {
        "preprocessing": asdict(images.data.preprocessing),
        "preprocessing_guessed": images.data.guessed,
    }


def search_record(run: Run) -> dict[str, Any]:
    """Returns what a report says of the search."""
    options, trials, slim = run.options, run.result.trials, _slim(run)
    return {
        "strategy": options.search,
        "trials": len(trials),
        "asked_trials": options.trials,
        "states": {s.value: n for s in TrialState if (n := sum(t.state is s for t in trials))},
        "seed": options.seed,
        "seconds": run.seconds.get("search", 0.0),
        "evaluation_s": round(sum(t.seconds for t in trials), 3),
        "proposal_s": round(sum(t.proposal_s for t in trials), 3),
        "grid": options.grid,
        "recover": slim.recovery,
        "undecided": list(slim.undecided),
        **({"tree": _tree(run)} if options.search == "bocr" and run.calibration is not None else {}),
        **({"floor": dict(run.floor)} if run.floor else {}),
        **({"trials": sum(r["trials"] for r in run.rounds), "rounds": list(run.rounds)} if run.rounds else {}),
    }


def _int8(run: Run) -> dict[str, Any]:
    """Returns the figures of the model in int8, with its latency; empty without one."""
    if run.int8_model is None:
        return {}
    return {**run.int8, "latency_ms": run.latency["int8_median_ms"], "speedup": run.latency["int8_speedup"]}


def _missed_int8(run: Run) -> tuple[str, ...]:
    return (f"--int8: {run.int8['missed']}",) if "missed" in run.int8 else ()


def _file_size(run: Run) -> int:
    data = run.output.with_name(f"{run.output.name}.data")
    return run.output.stat().st_size + (data.stat().st_size if run.graph.external and data.exists() else 0)


def _missed(budget: Budget, before: CostModel, after: CostModel, latency: Mapping[str, Any]) -> list[str]:
    """Returns the bounds that are exceeded: counts by anything, latency by more than it can be measured."""
    missed = []
    for name, share in budget.shares.items():
        if name == LATENCY.name:
            in_int8 = "baseline_int8_median_ms" in latency
            models = ("int8", "baseline_int8") if in_int8 else ("result", "baseline")
            after_ms, before_ms = (latency[f"{model}_median_ms"] for model in models)
            kept = after_ms / before_ms
            slack = LATENCY_SLACK
        else:
            kept = QUANTITIES[name].of(after) / max(QUANTITIES[name].of(before), 1)
            slack = COUNT_SLACK
        if kept > share * slack:
            missed.append(f"--{name} {share:g}: kept {kept:.4f}")
    return missed
