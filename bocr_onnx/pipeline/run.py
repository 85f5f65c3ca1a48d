"""The record of a run, which every stage returns with what it has found.

ratios   in (0, 1], one per group   what a strategy proposes
| project onto the budget, round to the grid
widths   kept channels per group    what a trial is
| the most important channels of each group
mask     one bit per channel        what is cut
| positions of the kept channels
plan     plan.json                  what is written, and can be applied again
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from onnx import ModelProto

from bocr_onnx.cost import CostModel, Prunable
from bocr_onnx.data import Pools
from bocr_onnx.graph import ModelGraph
from bocr_onnx.groups import GroupIndex
from bocr_onnx.options import PruneOptions, Recovery
from bocr_onnx.pipeline.loaded import Images
from bocr_onnx.pipeline.rundir import RunDir
from bocr_onnx.progress import Progress
from bocr_onnx.recovery import Calibration, PolicyScorer, Weights
from bocr_onnx.report import Report
from bocr_onnx.search import Projection, SearchResult, Trial
from bocr_onnx.search.history import History
from bocr_onnx.slimming import Mask, Proof


@dataclass(frozen=True, slots=True)
class Slim:
    """A slim model.

    Attributes:
        mask: Which channels stay.
        proto: The model.
        weights: Weights that recovery has set; None after finetuning, which sets any.
        recovery: Recovery that was best for it.
        undecided: Groups that lost channels although nothing tells theirs apart.
        before: Score on unseen images before finetuning; None without data.
        after: Score on unseen images at the end; None without data.
        finetune: Record of the finetuning; empty without it.
        outputs: How near each output is to the original's on unseen images.
    """

    mask: Mask
    proto: ModelProto
    weights: Weights | None
    recovery: Recovery = "none"
    undecided: tuple[str, ...] = ()
    before: float | None = None
    after: float | None = None
    finetune: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """One model and one budget, and what the stages have found so far.

    Attributes:
        options: Options of this budget, with its share of the trials.
        model: The original, its groups and its cost.
        projection: Space and budget.
        progress: Shows long steps.
        output: The slim file.
        run_dir: Directory for plan, journal and report.
        history: Store of past searches; None if none is to be used.
        resuming: Whether the journal must belong to this run.
        teacher: The model that finetuning learns from.
        known: Trials at other budgets of the same run.
        rounds: Records of the searches of all rounds, where there were several.
        pools: The images, not loaded yet; None without data.
        images: The images, from `load` on; None without data.
        calibration: Measurements of the original, from `measure` on.
        scorer: Scorer of policies, from `measure` on; None without data.
        result: Result of the search, from `search` on.
        slim: The slim model, from `recover` on.
        proof: Its proof, from `prove` on.
        after: Its cost model, counted on itself, from `write` on.
        latency: Latency of both, from `benchmark` on.
        floor: Budgets that were tried for a floor under the score; empty without one.
        int8: Figures of the slim model in int8; empty without it.
        int8_model: That model; None without it.
        mobile: Files for phones, and what accelerators would run; empty without them.
        report: The report, from `report` on.
        seconds: Wall time of the stages so far, by name.
    """

    options: PruneOptions
    model: Prunable
    projection: Projection
    progress: Progress
    output: Path
    run_dir: RunDir
    history: History | None
    resuming: bool
    teacher: ModelGraph
    known: tuple[Trial, ...] = ()
    rounds: tuple[Mapping[str, Any], ...] = ()
    pools: Pools | None = None
    images: Images | None = None
    calibration: Calibration | None = None
    scorer: PolicyScorer | None = None
    result: SearchResult = field(default_factory=lambda: SearchResult((), ()))
    slim: Slim | None = None
    proof: Proof | None = None
    after: CostModel | None = None
    latency: Mapping[str, Any] = field(default_factory=dict)
    floor: Mapping[str, Any] = field(default_factory=dict)
    int8: Mapping[str, Any] = field(default_factory=dict)
    int8_model: ModelProto | None = None
    mobile: Mapping[str, Any] = field(default_factory=dict)
    report: Report | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)

    def measured_as(self, other: Run) -> Run:
        """Returns the run with the images and the measurements of another budget of the same model."""
        return replace(self, images=other.images, calibration=other.calibration, scorer=other.scorer)

    @property
    def graph(self) -> ModelGraph:
        """Returns the original."""
        return self.model.graph

    @property
    def index(self) -> GroupIndex:
        """Returns the groups of the original."""
        return self.model.index

    @property
    def cost(self) -> CostModel:
        """Returns the cost model of the original."""
        return self.model.cost
