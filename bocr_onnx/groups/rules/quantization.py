"""QuantizeLinear and DequantizeLinear keep channels where they are; scales per channel are cut with them.

y[c] = saturate(round(x[c] / scale[c]) + zero_point[c])        x[c] = (y[c] - zero_point[c]) * scale[c]
"""

from __future__ import annotations

from bocr_onnx.graph import Node
from bocr_onnx.groups.labels import Labeller
from bocr_onnx.groups.records import Block, RuleError, on
from bocr_onnx.groups.rules.registry import rule


@rule("QuantizeLinear", "DequantizeLinear")
def quantize(node: Node, at: Labeller) -> None:
    """Passes labels, and cuts scale and zero point where they lie along the labelled axis."""
    blocks = at.read(node.inputs[0])
    if not blocks:
        return
    names = [name for name in node.inputs[1:3] if name]
    if node.attributes.get("block_size", 0) or any(at.constant(name) is None for name in names):
        raise RuleError("its scales are computed, or one for several channels")
    axis = int(node.attributes.get("axis", 1)) % max(len(at.shape(node.inputs[0])), 1)
    made: list[Block] = []
    for block in blocks:
        if axis not in block.axes or all(len(at.shape(name)) == 0 or at.shape(name) == (1,) for name in names):
            made.append(block)
            continue
        labels = at.collapse(block, axis)
        for position in range(1, 1 + len(names)):
            at.cut((node.index, position), 0, labels)
        made.append(on(axis, labels))
    at.emit(node.outputs[0], made)
