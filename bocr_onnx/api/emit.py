"""The last mile: prove, write, measure, report."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from bocr_onnx.api.inspection import Inspection, refusal_records
from bocr_onnx.api.rundir import RunDir
from bocr_onnx.cost import QUANTITIES, Cost, CostModel, build_cost_model
from bocr_onnx.devices import compare_latency
from bocr_onnx.evaluation import Weights, open_session, run_once
from bocr_onnx.graph import ModelGraph, from_proto, random_feeds, save, write_text
from bocr_onnx.groups import GroupIndex, build_index
from bocr_onnx.options import PruneOptions
from bocr_onnx.progress import Progress
from bocr_onnx.report import Figures, GroupFigures, Report, markdown
from bocr_onnx.search import Budget
from bocr_onnx.slimming import Mask, Proof, plan_of_mask, prove, write_plan


@dataclass(frozen=True, slots=True)
class Emission:
    """Everything that is known when the slim model is done.

    Attributes:
        graph: The original.
        index: Its groups.
        cost: Its cost model.
        inspection: Its groups and refusals with their shares.
        mask: Which channels stay.
        slim: The slim model.
        weights: What recovery has set, as handed to the cut; None after finetuning, which sets any.
        output: Where it goes.
        run_dir: Where plan and report go.
        options: What was asked for, written beside them.
        budget: What was asked for.
        accuracies: Accuracies of the original, before finetuning and at the end, on unseen images; None without data.
        metric: What they are.
        data: Record of the images.
        search: Record of the search.
        finetune: Record of the finetuning.
        seconds: Wall time of stages.
        threads: Number of threads used when measuring latency.
    """

    graph: ModelGraph
    index: GroupIndex
    cost: CostModel
    inspection: Inspection
    mask: Mask
    slim: ModelProto
    weights: Weights | None
    output: Path
    run_dir: RunDir
    options: PruneOptions
    budget: Budget
    accuracies: tuple[float, float | None, float | None] | None
    metric: str
    data: dict[str, Any]
    search: dict[str, Any]
    finetune: dict[str, Any]
    seconds: dict[str, float]
    threads: int


def emit(emission: Emission, progress: Progress) -> Report:
    """Proves and writes the slim model, and returns the report, written beside it.

    Raises:
        ProofError: The slim model differs from the masked original; nothing was written.
        OutputError: A file cannot be written.
    """
    graph, run_dir = emission.graph, emission.run_dir
    with progress.task("Proving the cut") as update:
        proof = prove(graph, emission.index, emission.mask, emission.slim, run_once, weights=emission.weights)
        update(1, 1)
    run_dir.create(emission.options)
    plan = plan_of_mask(emission.index, emission.mask)
    write_plan(run_dir.plan, graph, emission.index, plan)
    save(emission.slim, emission.output, external=bool(graph.external))
    before, after = emission.cost.cost(emission.cost.full), measured_cost(emission.slim, graph)
    with progress.task("Measuring latency") as update:
        latency = measure_latency(graph, emission.slim, emission.threads)
        update(1, 1)
    report = _report(emission, proof, before, after, latency)
    write_text(run_dir.report_json, report.dumps())
    write_text(run_dir.report_md, markdown(report))
    return report


def measured_cost(slim: ModelProto, original: ModelGraph) -> Cost:
    """Returns the cost of a slim model, counted on itself and not predicted from its original.

    Args:
        slim: The model.
        original: Gives the sizes of open axes.
    """
    graph = from_proto(slim, input_shapes=original.input_shapes)
    cost = build_cost_model(graph, build_index(graph))
    return cost.cost(cost.full)


def measure_latency(graph: ModelGraph, slim: ModelProto, threads: int) -> dict[str, Any]:
    """Returns the latency of original and slim model, interleaved, as a report holds it.

    Args:
        graph: The original.
        slim: The slim model.
        threads: Intra-op threads, 0 for one per core.

    Returns:
        ``clock`` (``cpu`` or ``wall``), median, IQR and samples in ms by that clock, raw samples in ms by both clocks,
        ``threads`` and ``batch`` (1, or what the model fixes).
    """
    feeds = random_feeds(graph)
    sessions = [open_session(proto, threads=threads) for proto in (graph.proto, slim)]
    batch = 1 if graph.batch_is_symbolic() else graph.batch
    before, after = compare_latency(sessions, feeds, threads=threads, batch=batch)
    return {
        "threads": threads,
        "batch": before.batch,
        "clock": before.clock,
        "baseline_median_ms": before.median_ms,
        "result_median_ms": after.median_ms,
        "baseline_iqr_ms": before.iqr_ms,
        "result_iqr_ms": after.iqr_ms,
        "baseline_samples_ms": _rounded(before.samples_ms),
        "result_samples_ms": _rounded(after.samples_ms),
        "baseline_wall_ms": _rounded(before.wall_ms),
        "baseline_cpu_ms": _rounded(before.cpu_ms),
        "result_wall_ms": _rounded(after.wall_ms),
        "result_cpu_ms": _rounded(after.cpu_ms),
    }


def _rounded(samples_ms: tuple[float, ...]) -> list[float]:
    return [round(sample, 5) for sample in samples_ms]


def _report(emission: Emission, proof: Proof, before: Cost, after: Cost, latency: dict[str, Any]) -> Report:
    baseline, middle, end = emission.accuracies or (None, None, None)
    graph, inspection = emission.graph, emission.inspection
    widths = np.array([int(emission.mask[g.span].sum()) for g in emission.index.groups])
    return Report(
        model={"path": graph.label, "sha256": graph.sha256},
        output=str(emission.output),
        target=dict(emission.budget.shares),
        baseline=Figures(before.macs, before.params, before.size_bytes, baseline, latency["baseline_median_ms"]),
        result=Figures(after.macs, after.params, _file_size(emission), end, latency["result_median_ms"]),
        accuracy_before_finetune=middle,
        metric=emission.metric,
        search=emission.search,
        proof=asdict(proof) | {"passed": proof.passed},
        data=emission.data,
        refusals=refusal_records(inspection),
        groups=tuple(
            GroupFigures(g.name, g.n_channels, int(w), share)
            for g, w, share in zip(emission.index.groups, widths, inspection.shares, strict=True)
        ),
        latency=latency,
        finetune=emission.finetune,
        missed=tuple(_missed(emission.budget, before, after)),
        versions={
            "version": version("bocr-onnx"),
            "onnx": version("onnx"),
            "onnxruntime": version("onnxruntime"),
        },
        seconds=emission.seconds,
    )


def _file_size(emission: Emission) -> int:
    data = emission.output.with_name(f"{emission.output.name}.data")
    return emission.output.stat().st_size + (data.stat().st_size if emission.graph.external and data.exists() else 0)


def _missed(budget: Budget, before: Cost, after: Cost) -> list[str]:
    kept = {name: QUANTITIES[name].of(after) / max(QUANTITIES[name].of(before), 1) for name in budget.shares}
    return [
        f"--{name} {share:g}: kept {kept[name]:.4f}"
        for name, share in budget.shares.items()
        if QUANTITIES[name].of(after) > share * QUANTITIES[name].of(before) * 1.001
    ]
