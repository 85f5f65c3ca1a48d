"""The pure result of a run, and its report.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Figures:
    """What a model costs and scores.

    Attributes:
        quantities: Each of `bocr_onnx.cost.QUANTITIES` by its field; the size is that of the file.
        accuracy: Share of unseen images, in [0, 1]; None without data.
        latency_ms: Median time of one run in ms on this host, by the clock and at the batch that the report's latency
            names; None where it was not measured.
    """

    quantities: Mapping[str, int]
    accuracy: float | None = None
    latency_ms: float | None = None

    @property
    def macs(self) -> int:
        """Returns the multiply-accumulates at batch 1."""
        return self.quantities["macs"]

    @property
    def params(self) -> int:
        """Returns the elements of floating-point constants."""
        return self.quantities["params"]

    @property
    def size_bytes(self) -> int:
        """Returns the size of the file, external data included."""
        return self.quantities["size_bytes"]

    def as_json(self) -> dict[str, Any]:
        """Returns the JSON of the figures."""
        return {**self.quantities, "accuracy": self.accuracy, "latency_ms": self.latency_ms}


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """One group of the result.

    Attributes:
        name: The group.
        n_channels: Number of channels of the original.
        n_kept: Number of channels of the result.
        share: Share of the original's MACs that the group controls.
        error: Distortion of the output when half of the group is cut alone; None where it was not measured.
    """

    name: str
    n_channels: int
    n_kept: int
    share: float
    error: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a run has to say.

    Attributes:
        model: Path and digest of the original.
        output: Path of the slim model.
        target: Budget by name; shares that are kept.
        baseline: The original.
        result: The slim model.
        accuracy_before_finetune: Accuracy of the slim model before finetuning, on the same images; None without data.
        metric: What accuracy is, such as ``top-1``, ``agreement with the original`` or ``fidelity``.
        search: Strategy, trials, seed, seconds and more.
        proof: Differences against the masked original.
        data: Which images served for what.
        refusals: What was left alone, and why.
        groups: Kept channels of every group.
        latency: Median, IQR and samples of ``baseline`` and ``result`` in ms by the quoted ``clock`` (``cpu`` or
            ``wall``), raw samples by both clocks, threads and batch.
        finetune: What finetuning did; empty without it.
        int8: The slim model in int8: its file, size, accuracy and latency, and how it was made; empty without it.
        mobile: The .ort file and what accelerators of phones would run of it; empty without it.
        task: Name of the task; empty without data.
        outputs: How near each output is to the original's on unseen images: distortion, correlation, largest error,
            and ``figures``, those of its task by name.
        missed: Targets and checks that were missed, in words.
        versions: Versions of the packages that matter.
        seconds: Wall time of each stage.
        output_sha256: Digest of the slim model, as `model` has that of the original.
    """

    model: dict[str, str]
    output: str
    target: dict[str, float]
    baseline: Figures
    result: Figures
    accuracy_before_finetune: float | None
    metric: str
    search: dict[str, Any]
    proof: dict[str, Any]
    data: dict[str, Any]
    refusals: tuple[dict[str, Any], ...]
    groups: tuple[GroupFigures, ...]
    latency: dict[str, Any] = field(default_factory=dict)
    finetune: dict[str, Any] = field(default_factory=dict)
    int8: dict[str, Any] = field(default_factory=dict)
    mobile: dict[str, Any] = field(default_factory=dict)
    task: str = ""
    outputs: tuple[dict[str, Any], ...] = ()
    missed: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    output_sha256: str = ""

    def as_json(self) -> dict[str, Any]:
        """Returns the content of report.json, schema 1."""
        record = asdict(self)
        before = record.pop("accuracy_before_finetune")
        versions = record.pop("versions")
        return {
            "schema": SCHEMA,
            "tool": {"name": "bocr-onnx", **versions},
            **record,
            "baseline": self.baseline.as_json(),
            "result": self.result.as_json() | {"accuracy_before_finetune": before},
        }

    def _repr_html_(self) -> str:
        """Returns what a notebook shows."""
        from bocr_onnx.report.notebook import report_html

        return report_html(self.as_json())

    def dumps(self) -> str:
        """Returns report.json as text."""
        return json.dumps(self.as_json(), indent=2) + "\n"
