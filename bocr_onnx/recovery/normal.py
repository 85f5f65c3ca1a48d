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
from bocr_onnx.recovery.blas import solve_blocks, solve_positive
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
        depthwise: Every output reads inputs of its own.
        taps: Inputs that each reads then.
    """

    depthwise: bool
    taps: int
    n: int = 0
    p: Floats | float = 0.0
    y: Floats | float = 0.0
    pp: Floats | float = 0.0
    py: Floats | float = 0.0

    def add(self, rows: Array, target: Array) -> None:
        """Adds rows, shape `(n, columns)`, and targets, shape `(n, n_outputs)`."""
        self.n += len(rows)
        self.y = self.y + target.sum(axis=0, dtype=np.float64)
        if self.depthwise:
            blocks = rows.reshape(len(rows), -1, self.taps).transpose(1, 2, 0)
            self.p = self.p + blocks.sum(axis=2, dtype=np.float64)
            self.pp = self.pp + np.matmul(blocks, blocks.transpose(0, 2, 1)).astype(np.float64)
            self.py = self.py + np.matmul(blocks, target.T[:, :, None])[:, :, 0].astype(np.float64)
        else:
            self.p = self.p + rows.sum(axis=0, dtype=np.float64)
            self.pp = self.pp + (rows.T @ rows).astype(np.float64)
            self.py = self.py + (rows.T @ target).astype(np.float64)

    def plus(self, other: NormalSums, sign: int = 1) -> NormalSums:
        """Returns the sums over the rows of both, or with ``sign=-1`` over those that are not the other's."""
        values = [getattr(self, name) + sign * getattr(other, name) for name in ("n", "p", "y", "pp", "py")]
        return NormalSums(self.depthwise, self.taps, *values)

    def solve(self, start: Floats, ridge: float) -> tuple[Floats, Floats]:
        """Returns weight matrix and bias.

        Args:
            start: What the ridge draws towards, shape `(n_outputs, columns)`.
            ridge: In units of the mean variance of an input.
        """
        p, y = np.asarray(self.p) / self.n, np.asarray(self.y) / self.n
        c = centred(np.asarray(self.pp) / self.n, p)
        if self.depthwise:
            b = np.asarray(self.py) / self.n - p * y[:, None]
            added = ridge * np.maximum(np.einsum("ctt->c", c) / c.shape[1], 1e-12)
            c = c + added[:, None, None] * np.eye(c.shape[1])
            matrix = solve_blocks(c, (b + added[:, None] * start)[:, :, None])[:, :, 0]
            return matrix, y - np.einsum("ct,ct->c", matrix, p)
        b = np.asarray(self.py) / self.n - np.outer(p, y)
        added = ridge * max(float(np.trace(c)) / len(c), 1e-12)
        c[np.diag_indices_from(c)] += added
        matrix = solve_positive(c, b + added * start.T).T
        return matrix, y - matrix @ p

    def error(self, matrix: Floats, bias: Floats) -> float:
        """Returns the squared error of a fit over all rows, less what no fit changes."""
        if self.depthwise:
            products = np.einsum("ct,ctu,cu->", matrix, self.pp, matrix) - 2 * np.sum(matrix * self.py)
            made = np.einsum("ct,ct->c", matrix, self.p)
        else:
            products = np.sum((matrix @ self.pp) * matrix) - 2 * np.sum(matrix * np.asarray(self.py).T)
            made = matrix @ self.p
        return float(products + bias @ (2 * made + self.n * bias - 2 * np.asarray(self.y)))

    def doubt(self) -> float:
        """Returns the ridge that few rows ask for, if they are independent (`bocr_onnx.recovery.shrinkage`)."""
        if self.depthwise:
            return float(RIDGES[0])
        rho = shrinkage(centred(np.asarray(self.pp) / self.n, np.asarray(self.p) / self.n), self.n)
        return float(rho / max(1 - rho, 1e-9))


def solve_parts(parts: Sequence[NormalSums], start: Floats) -> tuple[Floats, Floats]:
    """Returns weight matrix and bias of the fit to all parts, with the ridge that predicts parts best that it left out.

    The ridge is found downhill from the one that few rows ask for; with a single part it is that one.

    Args:
        parts: Sums over some images each.
        start: What the ridge draws towards, shape `(n_outputs, columns)`.
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
