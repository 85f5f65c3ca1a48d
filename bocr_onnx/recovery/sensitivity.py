"""Which channel to lose next, and what it costs: backward elimination on the moments of the consumers.

For a consumer with centred input moments C and weight W, refitting on the kept inputs leaves the error

    e(S) = trace(R) of the part of W p that the kept inputs cannot explain.

With H = C^-1 over the inputs still kept and W the weight refitted on them, losing the block of columns of channel c
(all taps) adds exactly

    delta_c = trace(W_c (H_cc)^-1 W_c^T)

(optimal brain surgeon, Hassibi & Stork 1993, by blocks), after which

    W <- W - W_c (H_cc)^-1 H_c,     H <- H - H_c^T (H_cc)^-1 H_c.

Removing the cheapest channel again and again gives a nested ranking and the whole error curve of a group at once,
with no data pass. Errors of a consumer are shares of the variance of its output, so consumers add up.

A reader that is not refitted (a quantized or shared weight, a recurrent operator, a product of two activations) loses
the share of its energy that it draws from the channel (`importance`). Where nothing tells the channels of a group
apart, the first ones stay, and the group is named in `Sensitivity.blind`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bocr_onnx.groups import ChannelGroup, GroupIndex
from bocr_onnx.recovery.blas import solve_blocks, solve_positive
from bocr_onnx.recovery.importance import Energies, energy_drawn
from bocr_onnx.recovery.moments import Moments
from bocr_onnx.recovery.oneshot import RIDGE
from bocr_onnx.recovery.patches import Affine, Floats, inner_channels, is_refitted, to_matrix

Ranking = npt.NDArray[np.int64]

SAME = 1e-9
"""Channels whose energies differ by a smaller share are alike."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What each group loses with its channels.

    Attributes:
        ranked: For every group its channel numbers, the last one lost first.
        curves: For every group the error at width w, shape `(n_channels + 1,)`; zero at full width, not
            increasing in w. The value at width 0 repeats that at width 1.
        blind: Numbers of the groups whose channels nothing tells apart.
    """

    ranked: tuple[Ranking, ...]
    curves: tuple[Floats, ...]
    blind: tuple[int, ...] = ()


def scan_sensitivity(
    index: GroupIndex,
    affines: tuple[Affine, ...],
    moments: Mapping[int, Moments],
    energies: Energies,
) -> Sensitivity:
    """Returns ranking and error curve of every group.

    Args:
        index: Groups of the model.
        affines: Its weighted operators.
        moments: By node index; may be empty.
        energies: Energies of what operators read that are not refitted; may be empty.
    """
    refitted = {a.node.index: a for a in affines if is_refitted(a) and a.node.index in moments}
    drawn = energy_drawn(index, energies, without=refitted)
    ranked, curves, blind = [], [], []
    for number, group in enumerate(index.groups):
        lost = drawn[group.span]
        consumers = _consumers(index, refitted.values(), moments, group)
        if not consumers and np.ptp(lost) <= SAME * lost.max(initial=0):
            blind.append(number)
        order, curve = _eliminate(consumers, lost)
        ranked.append(order)
        curves.append(curve)
    return Sensitivity(tuple(ranked), tuple(curves), tuple(blind))


@dataclass(slots=True)
class _Consumer:
    """One block of an operator that reads the group.

    Attributes:
        weight: Refitted on the inputs still kept, scaled so that the output variances of all blocks sum to one,
            shape `(n_outputs, n_columns)`.
        inverse: H, shape `(n_columns, n_columns)`.
        columns: For every channel of the group its columns, shape `(n_channels, n_columns_each)`.
    """

    weight: Floats
    inverse: Floats
    columns: npt.NDArray[np.int64]

    def deltas(self, alive: npt.NDArray[np.int64]) -> Floats:
        """Returns the error that losing each of the living channels adds, shape `(n_alive,)`."""
        columns = self.columns[alive]
        blocks = self.inverse[columns[:, :, None], columns[:, None, :]]
        weights = self.weight[:, columns].transpose(1, 2, 0)
        return np.asarray(np.einsum("cto,cto->c", weights, solve_blocks(blocks, weights)))

    def lose(self, channel: int) -> None:
        """Removes a channel."""
        columns = self.columns[channel]
        rows = self.inverse[columns]
        gain = solve_blocks(rows[:, columns], rows)
        self.weight -= self.weight[:, columns] @ gain
        self.inverse -= rows.T @ gain


def _consumers(
    index: GroupIndex,
    affines: Iterable[Affine],
    moments: Mapping[int, Moments],
    group: ChannelGroup,
) -> list[_Consumer]:
    graph = index.graph
    found = []
    for affine in affines:
        local = inner_channels(affine, index) - group.start
        inside = np.flatnonzero((local >= 0) & (local < group.n_channels))
        if not inside.size:
            continue
        inside = inside[np.argsort(local[inside], kind="stable")]
        columns = (inside[:, None] * affine.taps + np.arange(affine.taps)).reshape(group.n_channels, -1)
        weight = graph.operand(affine.weight)
        assert weight is not None
        matrix = to_matrix(affine, graph, weight).reshape(affine.blocks, -1, affine.n_columns)
        covariances = moments[affine.node.index].covariance
        matrix /= np.sqrt(max(float(np.sum(np.matmul(matrix, covariances) * matrix)), 1e-30))
        for own, covariance in zip(matrix, covariances, strict=True):
            lifted = covariance + RIDGE * max(np.trace(covariance) / len(covariance), 1e-12) * np.eye(len(covariance))
            found.append(_Consumer(own, solve_positive(lifted, np.eye(len(lifted))), columns))
    return found


def _eliminate(consumers: list[_Consumer], lost: Floats) -> tuple[Ranking, Floats]:
    """Returns the ranking and the error curve of a group.

    Args:
        consumers: Its readers that are refitted.
        lost: What the others lose with each channel, shape `(n_channels,)`.
    """
    n_channels = len(lost)
    alive = np.arange(n_channels)
    curve = np.zeros(n_channels + 1)
    gone: list[int] = []
    while len(alive) > 1:
        deltas = lost[alive] + np.sum([consumer.deltas(alive) for consumer in consumers], axis=0)
        worst = len(alive) - 1 - int(np.argmin(deltas[::-1]))  # of equals the last one
        channel = int(alive[worst])
        for consumer in consumers:
            consumer.lose(channel)
        alive = np.delete(alive, worst)
        gone.append(channel)
        curve[len(alive)] = curve[len(alive) + 1] + max(float(deltas[worst]), 0.0)
    if not curve.any():
        curve = 1 - np.arange(n_channels + 1) / n_channels  # a shape for measured cuts to scale
    curve[0] = curve[1]
    return np.array([*alive.tolist(), *gone[::-1]], dtype=np.int64), curve
