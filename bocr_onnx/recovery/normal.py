"""Least squares whose ridge is chosen by images that are left out.

    min  sum ||p W^T + b - y||^2 + ridge ||W - W_start||^2

How far a fit may be trusted is a matter of images, not of rows: the patches of one image are alike. So the sums are
kept in parts, a quarter of the images each, and the ridge is the one whose fit to three parts is nearest to the fourth,
over all four.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from bocr_onnx.graph import Array
from bocr_onnx.recovery.blas import solve_stack
from bocr_onnx.recovery.moments import centred
from bocr_onnx.recovery.patches import Floats
from bocr_onnx.recovery.shrinkage import shrinkage

N_PARTS = 4
RIDGES = np.geomspace(1e-3, 100, 11)
"""In units of the mean variance of an input."""


@dataclass(slots=True)
class NormalSums:
    """Sums of the normal equations, float32 products and float64 totals.

    Attributes:
        blocks: Products side by side, each with inputs and outputs of its own; most operators are one.
        n: Rows.
        p: Sums of inputs, shape `(blocks, columns)`.
        y: Sums of targets, shape `(blocks, n_outputs)`, those of a block.
        pp: Sums of products of inputs, shape `(blocks, columns, columns)`.
        py: Sums of products of inputs and targets, shape `(blocks, columns, n_outputs)`.
    """

    blocks: int = 1
    n: int = 0
    p: Floats | float = 0.0
    y: Floats | float = 0.0
    pp: Floats | float = 0.0
    py: Floats | float = 0.0

    def add(self, rows: Array, target: Array) -> None:
        """Adds rows, shape `(n, blocks * columns)`, and targets, shape `(n, blocks * n_outputs)`."""
        inputs = rows.reshape(len(rows), self.blocks, rows.shape[1] // self.blocks).transpose(1, 2, 0)
        targets = target.reshape(len(target), self.blocks, target.shape[1] // self.blocks).swapaxes(0, 1)
        self.n += len(rows)
        self.p = self.p + inputs.sum(axis=2, dtype=np.float64)
        self.y = self.y + targets.sum(axis=1, dtype=np.float64)
        self.pp = self.pp + np.matmul(inputs, inputs.swapaxes(1, 2)).astype(np.float64)
        self.py = self.py + np.matmul(inputs, targets).astype(np.float64)

    def plus(self, other: NormalSums, sign: int = 1) -> NormalSums:
        """Returns the sums over the rows of both, or with ``sign=-1`` over those that are not the other's."""
        values = [getattr(self, name) + sign * getattr(other, name) for name in ("n", "p", "y", "pp", "py")]
        return NormalSums(self.blocks, *values)

    def solve(self, start: Floats, ridge: float) -> tuple[Floats, Floats]:
        """Returns weight matrix, of the shape of the start, and bias, shape `(blocks * n_outputs,)`.

        Args:
            start: What the ridge draws towards, shape `(blocks * n_outputs, columns)`.
            ridge: In units of the mean variance of an input.
        """
        p, y, c = np.asarray(self.p) / self.n, np.asarray(self.y) / self.n, self._covariance()
        b = np.asarray(self.py) / self.n - p[:, :, None] * y[:, None, :]
        added = ridge * np.maximum(np.einsum("gtt->g", c) / c.shape[1], 1e-12)[:, None, None]
        drawn = start.reshape(self.blocks, -1, start.shape[1]).swapaxes(1, 2)
        matrix = solve_stack(c + added * np.eye(c.shape[1]), b + added * drawn).swapaxes(1, 2)
        bias = y - np.matmul(matrix, p[:, :, None])[:, :, 0]
        return matrix.reshape(start.shape), bias.reshape(-1)

    def error(self, matrix: Floats, bias: Floats) -> float:
        """Returns the squared error of a fit over all rows, less what no fit changes."""
        matrix, bias = matrix.reshape(self.blocks, -1, matrix.shape[1]), bias.reshape(self.blocks, -1)
        products = np.sum(np.matmul(matrix, self.pp) * matrix) - 2 * np.sum(matrix * np.asarray(self.py).swapaxes(1, 2))
        made = np.matmul(matrix, np.asarray(self.p)[:, :, None])[:, :, 0]
        return float(products + np.sum(bias * (2 * made + self.n * bias - 2 * np.asarray(self.y))))

    def doubt(self) -> float:
        """Returns the ridge that few rows ask for, if they are independent (`bocr_onnx.recovery.shrinkage`)."""
        rho = float(np.mean([shrinkage(covariance, self.n) for covariance in self._covariance()]))
        return rho / max(1 - rho, 1e-9)

    def _covariance(self) -> Floats:
        return centred(np.asarray(self.pp) / self.n, np.asarray(self.p) / self.n)


def solve_parts(parts: Sequence[NormalSums], start: Floats) -> tuple[Floats, Floats]:
    """Returns weight matrix and bias of the fit to all parts, with the ridge that predicts parts best that it left out.

    The ridge is found downhill from the one that few rows ask for; with a single part it is that one.

    Args:
        parts: Sums over some images each.
        start: What the ridge draws towards, shape `(blocks * n_outputs, columns)`.
    """
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.plus(part)

    @cache
    def unseen(at: int) -> float:
        if not 0 <= at < len(RIDGES):
            return float("inf")
        return sum(part.error(*whole.plus(part, -1).solve(start, RIDGES[at])) for part in parts)

    at = int(np.argmin(np.abs(np.log(RIDGES) - np.log(max(whole.doubt(), 1e-9)))))
    while len(parts) > 1 and (best := min((at, at - 1, at + 1), key=unseen)) != at:
        at = best
    return whole.solve(start, float(RIDGES[at]))
