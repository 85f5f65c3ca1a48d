"""The same cut again, without a search."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bocr_onnx.cost import Cost, build_cost_model, slim_cost
from bocr_onnx.graph import check_writable, save
from bocr_onnx.groups import build_index
from bocr_onnx.options import ApplyOptions, keywords
from bocr_onnx.pipeline.model import read_model
from bocr_onnx.pipeline.outputs import check_outputs
from bocr_onnx.progress import shown
from bocr_onnx.runtime import run_once
from bocr_onnx.slimming import Proof, cut, prove_cut, read_plan


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


@keywords(ApplyOptions)
def apply(options: ApplyOptions) -> Applied:
    """Cuts a model by a plan, with the model's own weights, and proves it.

    Args: from the record.

    Raises:
        BocrError: The plan is of another model, the output cannot be written, or the proof fails.
    """
    note = shown(options.progress).note
    graph = read_model(options.model, options.input_shapes, note=note)
    path = check_writable(options.output)
    check_outputs(graph, path, (), inputs=(Path(options.plan),))
    index = build_index(graph)
    found = read_plan(options.plan, index, strict=options.strict)
    same = found.model_sha256 == graph.sha256
    if not same:
        note(
            "warning: the plan was made for another file of the same network, with other weights or metadata (sha256 "
            f"{found.model_sha256[:12]}..., this file {graph.sha256[:12]}...); the cut is the same, its accuracy is "
            "not known"
        )
    mask = found.mask(index)
    slim = cut(index, mask)
    proof = prove_cut(index, mask, slim, run_once)
    save(slim, path, external=bool(graph.external))
    before, after = build_cost_model(index), slim_cost(slim, graph)
    return Applied(str(path), before.cost(before.full), after.cost(after.full), proof, same)
