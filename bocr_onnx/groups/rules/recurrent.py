"""LSTM, GRU and RNN consume the labels of their input and emit one fresh label for every hidden unit.

    a_t = W x_t + R h_{t-1} + Wb + Rb               W (D, g * H, C), R (D, g * H, H), B (D, 2 * g * H)
    h_t, c_t = gates(a_t, P c_{t-1}), unit by unit  P (D, 3 * H)

g gates are stacked in blocks of H rows, so that hidden unit j owns row j of every block, entry j of the states, and
column j of R, where the next step consumes it: a removed unit is zeroed there and where the outputs are consumed.
The D directions share one hidden_size, so that unit j of both goes at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bocr_onnx.graph import Node
from bocr_onnx.groups.labels import Labeller
from bocr_onnx.groups.records import Labels, RuleError, Work, on
from bocr_onnx.groups.rules.registry import rule

N_GATES = {"GRU": 3, "LSTM": 4, "RNN": 1}

N_PEEPHOLES = 3

ELEMENT_WISE = frozenset(
    "affine elu hardsigmoid leakyrelu relu scaledtanh sigmoid softplus softsign tanh thresholdedrelu".split()
)
"""Activations, in lower case as runtimes compare them."""


@rule("GRU", "LSTM", "RNN")
def recurrent(node: Node, at: Labeller) -> None:
    """Cuts W along the input channels, and everything that a hidden unit owns along the hidden units."""
    _check(node, at)
    rows, n_units = at.shape(node.inputs[2])[1:]
    gates = N_GATES[node.op]
    if rows != gates * n_units:
        raise RuleError("its weights do not fit its gates")
    labels = at.along(node, node.inputs[0], 2, "the channels lie on the steps or samples of a sequence")
    if labels is not None:
        at.consume(node, 0, 2, labels)
        at.cut((node.index, 1), 2, labels)
    units = at.fresh(n_units)
    stacked = np.tile(units, gates)
    at.cut((node.index, 1), 1, stacked)
    at.cut((node.index, 2), 1, stacked)
    at.cut((node.index, 2), 2, units)
    at.consume(node, 2, 2, units)
    for position, times in ((3, 2 * gates), (7, N_PEEPHOLES)):
        if node.input(position):
            at.cut((node.index, position), 1, np.tile(units, times))
    for position in (5, 6):
        _meet_state(node, at, position, units)
    at.count(node, "hidden_size", None, units)
    at.sources[(node.index, 1)] = 1
    at.sinks[(node.index, 1)] = at.sinks[(node.index, 2)] = (2,)
    for name, axis in zip(node.outputs, (3, 2, 2), strict=False):
        at.emit(name, [on(axis, units)])
    _note_work(node, at, labels, units)


def _check(node: Node, at: Labeller) -> None:
    for position in (1, 2, 3, 7):
        if node.input(position) and at.constant(node.input(position)) is None:
            raise RuleError("the weight or bias is computed, not constant")
    if node.attributes.get("layout", 0):
        raise RuleError("its layout is the samples first")
    if at.read(node.input(4)):
        raise RuleError("the channels say how long the sequences are")
    unknown = [a for a in map(_text, node.attributes.get("activations") or ()) if a.lower() not in ELEMENT_WISE]
    if unknown:
        raise RuleError(f"activation {unknown[0]!r} is not known to work element by element")


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _meet_state(node: Node, at: Labeller, position: int, units: Labels) -> None:
    """Joins the channels of an initial state, a constant or another operator's, with the hidden units."""
    name = node.input(position)
    if not name:
        return
    if at.constant(name) is not None:
        at.cut((node.index, position), 2, units)
        return
    found = at.along(node, name, 2, "the channels lie on the directions or samples of a state")
    if found is None:
        at.freeze(node, units, f"its state begins as {name!r}, whose channels cannot be cut")
    else:
        at.join(found, units)


def _note_work(node: Node, at: Labeller, labels: Labels | None, units: Labels) -> None:
    """Notes the multiply-accumulates: a column of W and one of R for every gate of every unit at every step."""
    whole = node.outputs[0]
    steps, _, n_channels = at.shape(node.inputs[0])
    spent = whole or next(name for name in node.outputs if name)
    gates = N_GATES[node.op] * (1 if whole else steps)
    at.work[node.index] = (
        Work(spent, gates * n_channels, () if labels is None else (labels,)),
        Work(spent, gates * len(units), (units,)),
    )
