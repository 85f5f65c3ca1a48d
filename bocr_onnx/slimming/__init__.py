"""Plan, cut and proof."""

from bocr_onnx.slimming.cut import changed_operands, cut, cut_edit, output_axis, widen
from bocr_onnx.slimming.decisions import Run
from bocr_onnx.slimming.difference import Proof, compare
from bocr_onnx.slimming.plan import (
    Mask,
    Plan,
    kept_positions,
    masked_reads,
    plan_of_mask,
    read_plan,
    write_plan,
)
from bocr_onnx.slimming.proof import check_runs, masked_original, prove_cut, prove_structure
from bocr_onnx.slimming.stored import on_grid, storage
from bocr_onnx.slimming.structure import structure_digest
from bocr_onnx.slimming.taken import cut_operand
from bocr_onnx.slimming.trying import filled

__all__ = [
    "Mask",
    "Plan",
    "Proof",
    "Run",
    "changed_operands",
    "check_runs",
    "compare",
    "cut",
    "cut_edit",
    "cut_operand",
    "filled",
    "kept_positions",
    "masked_original",
    "masked_reads",
    "on_grid",
    "output_axis",
    "plan_of_mask",
    "prove_cut",
    "prove_structure",
    "read_plan",
    "storage",
    "structure_digest",
    "widen",
    "write_plan",
]
