"""An ONNX file becomes a `ModelGraph`, and a changed copy of it becomes a file."""

from bocr_onnx.graph.branches import branches
from bocr_onnx.graph.edit import Edit, apply_edit, set_attribute
from bocr_onnx.graph.fills import FILLS
from bocr_onnx.graph.instrument import HALF, widened, with_given, with_masks, with_outputs, without_rounding
from bocr_onnx.graph.load import from_proto, load, resized
from bocr_onnx.graph.model import FLOATING, ROUNDING, Array, ModelGraph, Node, Operand
from bocr_onnx.graph.nodes import stored_in
from bocr_onnx.graph.operators import (
    INTEGER,
    RECURRENT,
    ZERO_POINT,
    full_name,
    is_weighted,
    operand_positions,
    scale_positions,
    weight_positions,
)
from bocr_onnx.graph.rows import InputRows, feeds, is_whole, row_shape, table
from bocr_onnx.graph.save import (
    check_writable,
    read_text,
    replacing,
    save,
    serialized_size,
    sweep_leftovers,
    write_text,
)
from bocr_onnx.graph.sizes import InputShapes, at_shapes, open_sides, other_feeds, random_feeds

__all__ = [
    "InputRows",
    "FILLS",
    "FLOATING",
    "HALF",
    "INTEGER",
    "RECURRENT",
    "ROUNDING",
    "ZERO_POINT",
    "Array",
    "Edit",
    "InputShapes",
    "ModelGraph",
    "Node",
    "Operand",
    "apply_edit",
    "at_shapes",
    "branches",
    "check_writable",
    "from_proto",
    "full_name",
    "is_weighted",
    "load",
    "operand_positions",
    "open_sides",
    "other_feeds",
    "random_feeds",
    "read_text",
    "replacing",
    "resized",
    "save",
    "scale_positions",
    "serialized_size",
    "set_attribute",
    "stored_in",
    "sweep_leftovers",
    "weight_positions",
    "widened",
    "with_given",
    "with_masks",
    "with_outputs",
    "without_rounding",
    "write_text",
    "feeds",
    "table",
    "is_whole",
    "row_shape",
]
