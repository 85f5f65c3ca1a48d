"""Moments of what every weighted operator reads, collected once on the original; later recoveries are arithmetic.

For the input patches p of an operator: m = E[p] and C = E[(p - m)(p - m)^T] (Gram matrix of the centred patches).
They hold all that least squares needs for any kept set, and the mean and variance of the outputs too:

    E[y] = W m + b,    var[y] = diag(W C W^T)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from bocr_onnx.graph import Array, InputRows, ModelGraph, feeds, with_outputs
from bocr_onnx.recovery.patches import Affine, Floats
from bocr_onnx.recovery.shrinkage import shrink
from bocr_onnx.recovery.windows import draw_positions, input_rows, output_shape
from bocr_onnx.runtime import Progress, batch_size, open_session, run_session

N_ROWS = 40_000
ROUNDING = 1e-6
"""Share of the mean square of a patch entry that float32 sums do not resolve."""

MAX_COLUMNS = 8_192
"""Operators with more inputs are cut without recovery: their matrix alone would take half a gigabyte."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Moments of the input patches of one operator.

    Attributes:
        mean: Shape `(blocks, n_columns)`, float64; most operators are one block.
        covariance: Shape `(blocks, n_columns, n_columns)`, float64.
        n: Patches they were taken from.
    """

    mean: Floats
    covariance: Floats
    n: int

    @property
    def energy(self) -> Floats:
        """Returns E[p^2] per column, flat."""
        return np.asarray(np.einsum("...tt->...t", self.covariance) + self.mean**2).reshape(-1)

    def shrunk(self) -> Moments:
        """Returns the moments to fit with, their covariances shrunk."""
        return replace(self, covariance=np.stack([shrink(covariance, self.n) for covariance in self.covariance]))


def collect_moments(
    graph: ModelGraph,
    affines: tuple[Affine, ...],
    images: InputRows,
    *,
    seed: int = 0,
    n_rows: int = N_ROWS,
    progress: Progress | None = None,
) -> dict[int, Moments]:
    """Returns the moments of every operator's input, by node index.

    Args:
        graph: The original.
        affines: The operators.
        images: Preprocessed input, float32, first axis the images.
        seed: Seed for the positions drawn.
        n_rows: Patches per operator, over all images.
        progress: Told after each batch.
    """
    rng = np.random.default_rng(seed)
    wanted = [a for a in affines if a.n_columns <= MAX_COLUMNS]
    names = list(dict.fromkeys(a.node.inputs[0] for a in wanted))
    inside = [n for n in names if n not in graph.inputs]
    session = open_session(with_outputs(graph.proto, inside))
    sums = {a.node.index: _Sums.empty(a) for a in wanted}
    batch = batch_size(graph)
    n_images = whole_runs(graph, len(images), batch)
    for start in range(0, n_images, batch):
        feed = images[start : min(start + batch, n_images)]
        inputs = feeds(graph, feed)
        outputs = run_session(session, inputs, inside) if inside else ()  # no names would mean all
        found = dict(zip(inside, outputs, strict=True)) | inputs
        for affine in wanted:
            share = max(1, n_rows * len(feed) // n_images)
            sums[affine.node.index].add(_rows(graph, affine, found, share, rng))
        if progress:
            progress(start + len(feed), n_images)
    return {index: s.moments() for index, s in sums.items() if s.n}


def whole_runs(graph: ModelGraph, n_images: int, batch: int) -> int:
    """Returns how many images are used: all, or whole runs of a batch that is baked into the model."""
    return n_images if graph.batch_is_symbolic() else n_images - n_images % batch


def _rows(
    graph: ModelGraph, affine: Affine, found: Mapping[str, Array], n_rows: int, rng: np.random.Generator
) -> Array:
    x = found[affine.node.inputs[0]]
    weight = graph.operand(affine.weight)
    assert weight is not None
    at = draw_positions(output_shape(affine.node, weight.shape[2:], x), affine.node.op, n_rows, rng)
    return input_rows(affine.node, weight.shape[2:], x, at)


def centred(second: Floats, mean: Floats) -> Floats:
    """Returns C = E[p p^T] - m m^T, held away from singular by what float32 sums cannot tell from zero.

    Args:
        second: E[p p^T], shape `(..., n, n)`.
        mean: m, shape `(..., n)`.
    """
    covariance = second - mean[..., :, None] * mean[..., None, :]
    energy = np.einsum("...tt->...t", second).mean(axis=-1)
    noise = ROUNDING * np.maximum(energy, 1e-12)
    return np.asarray(covariance + noise[..., None, None] * np.eye(second.shape[-1]))


@dataclass(slots=True)
class _Sums:
    """Running sums; batches are added in float32 products and float64 totals."""

    first: Floats
    second: Floats
    n: int = 0

    @staticmethod
    def empty(affine: Affine) -> _Sums:
        shape = (affine.blocks, affine.n_columns)
        return _Sums(np.zeros(shape), np.zeros((*shape, affine.n_columns)))

    def add(self, rows: Array) -> None:
        inputs = rows.reshape(len(rows), *self.first.shape).transpose(1, 2, 0)
        self.first += inputs.sum(axis=2, dtype=np.float64)
        self.second += np.matmul(inputs, inputs.swapaxes(1, 2))
        self.n += len(rows)

    def moments(self) -> Moments:
        mean = self.first / self.n
        return Moments(mean, centred(self.second / self.n, mean), self.n)
