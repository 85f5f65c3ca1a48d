"""Attention as one operator: heads live or die as one, through queries, keys and values.

Y[h] = softmax(Q[h] K[h]^T * scale) V[h]        (N, H, L, D), or (N, L, H * D) with the number of heads as attribute
"""

from __future__ import annotations

from bocr_onnx.graph import Node
from bocr_onnx.groups.labels import Labeller
from bocr_onnx.groups.records import Block, Labels, RuleError, Work, on
from bocr_onnx.groups.rules.registry import rule


@rule("Attention")
def attention(node: Node, at: Labeller) -> None:
    """Ties the channels of every head, and the heads of queries, keys and values."""
    if any(at.read(name) for name in node.inputs[3:]) or any(node.inputs[4:]) or any(node.outputs[1:]):
        raise RuleError("the attention has a cache, or channels in its mask")
    _note_work(node, at)
    heads = [_heads(node, at, i) for i in range(3)]
    found = [h for h in heads if h is not None]
    if not found:
        return
    if len(found) < 3 or len({len(h) for h in found}) > 1:
        for labels in found:
            at.freeze(node, labels, "queries, keys and values do not have the same heads")
        return
    for labels in found[1:]:
        at.join(found[0], labels)
    shape = at.shape(node.outputs[0])
    if len(shape) == 4:
        at.emit(node.outputs[0], [on(1, found[0])])
        return
    for name in ("q_num_heads", "kv_num_heads"):
        at.count(node, name, None, found[0])
    at.emit(node.outputs[0], [on(2, found[0].repeat(shape[2] // len(found[0])))])


def _heads(node: Node, at: Labeller, position: int) -> Labels | None:
    """Returns one label per head of an input."""
    name = node.inputs[position]
    reason = "the attention mixes all but the heads"
    if len(at.shape(name)) == 4:
        return at.along(node, name, 1, reason)
    labels = at.along(node, name, 2, reason)
    n_heads = int(node.attributes["q_num_heads" if position == 0 else "kv_num_heads"])
    return None if labels is None else at.collapse(Block((0, 1), labels.reshape(n_heads, -1)), 0)


def _note_work(node: Node, at: Labeller) -> None:
    """Notes the multiply-accumulates: one row of scores and one sum over the values for every entry of the output."""
    key, value = (at.shape(node.inputs[i]) for i in (1, 2))
    n_keys = key[-2]
    at.work[node.index] = (Work(node.outputs[0], n_keys * (key[-1] + value[-1]) // value[-1]),)
