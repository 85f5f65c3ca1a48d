"""What the labels amount to once all rules have spoken: classes, what is frozen, and one axis for every block.

Labels that lie over several axes must keep a product of them. Where the classes are already uniform along all axes but
one, that one is free; where nothing has decided, all but the longest axis are tied. A computed integer that stands
for a width must be equal to it whatever is kept: every class has to appear in both as often. Ties and freezes may
undo each other's premises, so both are repeated until nothing changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bocr_onnx.groups.labels import Labeller, classes
from bocr_onnx.groups.records import Block, Equality, Labels

FIXED = -1


@dataclass(frozen=True, slots=True)
class Settled:
    """Classes of labels.

    Attributes:
        classed: Class of every label, `FIXED` where it is frozen, shape `(n_labels,)`.
        merged: Class of every label, frozen or not.
        axes: Tensor name -> axis -> labels along it, shape `(n,)`.
    """

    classed: Labels
    merged: Labels
    axes: Mapping[str, Mapping[int, Labels]]


def settle(at: Labeller) -> Settled:
    """Returns the classes; adds the joins and freezes they need to `at`."""
    spread = [block for blocks in at.tensors.values() for block in blocks if len(block.axes) > 1]
    while True:
        merged = classes(at.n_labels, at.joins)
        classed = _classed(at, merged)
        open_blocks = [block for block in spread if _free_axis(block, classed) is None]
        for block in open_blocks:
            at.collapse(block, max(block.axes, key=lambda axis: len(block.rows(axis))))
        if open_blocks:
            continue
        kept = [promise for promise in at.equalities if not _broken(at, promise, classed)]
        if len(kept) == len(at.equalities):
            break
        at.equalities = kept
    axes = {name: dict(_alone(block, classed) for block in blocks) for name, blocks in at.tensors.items()}
    return Settled(classed, merged, axes)


def _classed(at: Labeller, merged: Labels) -> Labels:
    frozen = np.zeros(at.n_labels, dtype=bool)
    for freeze in at.freezes:
        frozen[merged[freeze.labels]] = True
    return np.where(frozen[merged], FIXED, merged) if at.n_labels else merged


def _free_axis(block: Block, classed: Labels) -> int | None:
    """Returns the axis along which alone the classes vary, or None."""
    for axis in sorted(block.axes, key=lambda a: -block.labels.shape[block.axes.index(a)]):
        if _uniform(classed[block.rows(axis)]).all():
            return axis
    return None


def _uniform(rows: Labels) -> npt.NDArray[np.bool_]:
    return np.asarray((rows == rows[:, :1]).all(axis=1))


def _alone(block: Block, classed: Labels) -> tuple[int, Labels]:
    axis = block.axes[0] if len(block.axes) == 1 else _free_axis(block, classed)
    assert axis is not None
    return axis, block.rows(axis)[:, 0]


def _broken(at: Labeller, promise: Equality, classed: Labels) -> bool:
    """Freezes what a promise cannot be kept for; returns whether it did."""
    width = _counted(classed, promise.width)
    if promise.rows is None:
        kept = set(width) <= {FIXED}
    else:
        kept = {cls: n * promise.times for cls, n in width.items()} == _counted(classed, promise.rows)
    if kept:
        return False
    node = at.graph.nodes[promise.node]
    at.freeze(node, promise.width, "the number of channels is used in arithmetic")
    if promise.rows is not None:
        at.freeze(node, promise.rows, "the target shape is computed in a way that does not follow the width")
    return True


def _counted(classed: Labels, rows: Labels) -> dict[int, float]:
    """Returns how often every class decides whether an entry stays; those that stay in any case are `FIXED`."""
    found = classed[rows]
    cls, times = np.unique(np.where(_uniform(found), found[:, 0], FIXED), return_counts=True)
    return dict(zip(cls.tolist(), times.astype(float).tolist(), strict=True))
