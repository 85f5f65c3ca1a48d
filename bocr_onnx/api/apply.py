"""The same cut again, without a search; and the score of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bocr_onnx.api.emit import measured_cost
from bocr_onnx.api.images import check_labels, fit_images, load_images
from bocr_onnx.api.model import read_model
from bocr_onnx.api.outputs import check_outputs
from bocr_onnx.api.progress import Progress, Silent
from bocr_onnx.api.shapes import settle_shapes
from bocr_onnx.api.sized import read_for_images
from bocr_onnx.cost import Cost, build_cost_model
from bocr_onnx.data import open_data
from bocr_onnx.errors import DataError, UsageError
from bocr_onnx.evaluation import Score, predict, run_once, score_outputs
from bocr_onnx.graph import check_writable, save
from bocr_onnx.groups import build_index
from bocr_onnx.slimming import Proof, cut, prove, read_plan


@dataclass(frozen=True, slots=True)
class Applied:
    """What applying a plan gave.

    Attributes:
        output: The slim file.
        baseline: Cost of the original.
        result: Cost of the slim model.
        proof: Differences against the masked original.
        same_model: Whether the plan was made for this very file, not for another one of the same structure.
    """

    output: str
    baseline: Cost
    result: Cost
    proof: Proof
    same_model: bool = True

    def as_json(self) -> dict[str, Any]:
        """Returns what ``bocr-onnx apply --json`` prints."""
        return {
            "schema": 1,
            "output": self.output,
            "same_model": self.same_model,
            "baseline": asdict(self.baseline),
            "result": asdict(self.result),
            "proof": asdict(self.proof) | {"passed": self.proof.passed},
        }


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A model's score on images.

    Attributes:
        model: The file.
        score: Top-1.
        preprocessing: What turned images into inputs.
        n_images: How many there were.
    """

    model: str
    score: Score
    preprocessing: str
    n_images: int

    def as_json(self) -> dict[str, Any]:
        """Returns what ``bocr-onnx evaluate --json`` prints."""
        return {
            "schema": 1,
            "model": self.model,
            "accuracy": self.score.value,
            "stderr": self.score.stderr,
            "n_images": self.n_images,
            "preprocessing": self.preprocessing,
        }


def apply(
    model: str | Path,
    plan: str | Path,
    output: str | Path,
    *,
    strict: bool = False,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    progress: Progress | None = None,
) -> Applied:
    """Cuts a model by a plan, with the model's own weights, and proves it.

    Args:
        model: The .onnx file the plan was made for, or one of the same structure: retrained, or with other metadata.
        plan: A plan.json.
        output: The slim file.
        strict: Whether the plan must have been made for this very file.
        input_shapes: Shapes of inputs by name, for the axes that the file leaves open.
        progress: Shown a warning where the plan was made for another file, and which sizes were taken for open axes.

    Raises:
        BocrError: The plan is of another model, the output cannot be written, or the proof fails.
    """
    graph = read_model(model, settle_shapes(input_shapes), note=(progress or Silent()).note)
    path = check_writable(output)
    check_outputs(graph, path, (), inputs=(Path(plan),))
    index = build_index(graph)
    found = read_plan(plan, graph, index, strict=strict)
    same = found.model_sha256 == graph.sha256
    if not same:
        (progress or Silent()).note(
            "warning: the plan was made for another file of the same network, with other weights or metadata (sha256 "
            f"{found.model_sha256[:12]}..., this file {graph.sha256[:12]}...); the cut is the same, its accuracy is "
            "not known"
        )
    mask = found.mask(index)
    slim = cut(graph, index, mask)
    proof = prove(graph, index, mask, slim, run_once, weights={})
    save(slim, path, external=bool(graph.external))
    cost = build_cost_model(graph, index)
    return Applied(str(path), cost.cost(cost.full), measured_cost(slim, graph), proof, same)


def evaluate(
    model: str | Path,
    data: str | Path,
    *,
    preset: str | None = None,
    preprocess: str | Path | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    progress: Progress | None = None,
) -> Evaluated:
    """Returns the top-1 accuracy of a model on labelled images.

    Args:
        model: The .onnx file.
        data: Images with labels; of a folder with train/ and val/, val/ is used.
        preset: Name of a preprocessing preset.
        preprocess: A preprocessing file, instead of a preset.
        input_shapes: Shapes of inputs by name, for the axes that the file leaves open; those of the images by default.
        progress: Shows long steps.

    Raises:
        BocrError: Model or data cannot be used.
    """
    if preset and preprocess:
        raise UsageError("one of --preset and --preprocess must be given, got both")
    shown = progress or Silent()
    pools = open_data(str(data))
    samples = pools.held_out or pools.single
    assert samples is not None
    chosen, sample = preset or (None if preprocess is None else str(preprocess)), pools.train or samples
    graph = read_for_images(model, lambda: (pools, sample), chosen, settle_shapes(input_shapes), note=shown.note)
    found = fit_images(graph, pools, sample, chosen)
    if samples.labels is None:
        raise DataError(f"--data {data} must have labels to evaluate on, got none", hint="See calibration/README.md")
    images = load_images(graph, found, samples)
    with shown.task("Scoring") as update:
        outputs = predict(graph, graph.proto, images, progress=update)
    check_labels(graph, outputs, samples, str(data))
    return Evaluated(str(model), score_outputs(outputs, samples.labels), found.preprocessing.name, len(images))
