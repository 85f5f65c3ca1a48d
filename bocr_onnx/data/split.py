"""Who sees which image: the search scores, the recovery fits and the final check measures on different ones.

The rows of a pool are put into one order in which every stretch is close to stratified, then cut::

    key of the k-th row of class c = (k + u_c) / n_c      k in random order, u_c uniform in [0, 1)

Sorted by this key, a stretch that covers a share p of the key range holds p * n_c rows of class c, give or
take one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bocr_onnx.data.samples import Pools, Samples
from bocr_onnx.errors import DataError, UsageError

PoolName = Literal["train", "held_out", "single"]
Order = npt.NDArray[np.int64]
_SINGLE_SHARE = 0.3
_MIN_TRAIN = 2
_MIN_SINGLE = 3


@dataclass(frozen=True, slots=True)
class Part:
    """Which rows of which pool a part holds, in the order of its samples."""

    pool: PoolName
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """A division of the data; no image is in two of `score`, `recovery` and `final`.

    Every part is in an order whose prefixes are close to stratified, so a smaller sample is a prefix.

    Attributes:
        score: What trials are scored on.
        recovery: What the recovery fits on; labels are not needed.
        final: What the result is measured on, once.
        training: What a finetune may see: all that is neither in `score` nor in `final`.
        seed: Seed of the division.
        indices: Name of the part -> where its samples come from.
        labelled: Whether the samples have labels.
        path: The data source as it was given.
    """

    score: Samples
    recovery: Samples
    final: Samples
    training: Samples
    seed: int
    indices: Mapping[str, Part]
    labelled: bool
    path: str

    def describe(self) -> dict[str, Any]:
        """Returns a JSON-able record: the source, and per part its pool, size and a sha256 of its rows."""
        parts = {
            name: {"pool": part.pool, "n_images": len(part.rows), "rows_sha256": _rows_sha256(part.rows)}
            for name, part in self.indices.items()
        }
        return {"path": self.path, "seed": self.seed, "labelled": self.labelled, "parts": parts}


def split(pools: Pools, *, seed: int, n_score: int = 2000, n_recovery: int = 1000, n_final: int = 10_000) -> Split:
    """Returns a division of the pools, the same for the same seed, sizes and data.

    With train and held-out pools, `score` (at most half of train) and `recovery` (at most what is then left)
    are drawn from train and `final` from held-out. A single pool gives 30 % to `score`, 30 % to `recovery`
    and the rest to `final`. The sizes asked for are upper limits. Labelled draws are stratified.

    Raises:
        UsageError: A size is not positive, or the seed is negative.
        DataError: The pools are too small for one image in every part.
    """
    for name, n in (("n_score", n_score), ("n_recovery", n_recovery), ("n_final", n_final)):
        if n < 1:
            raise UsageError(f"{name} must be at least 1, got {n}")
    if seed < 0:
        raise UsageError(f"seed must be 0 or more, got {seed}")
    rng = np.random.default_rng(seed)
    if pools.single is not None:
        parts = _from_single(_order(pools.single, rng), n_score, n_recovery, n_final, pools.path)
    else:
        parts = _from_two(pools, rng, n_score, n_recovery, n_final)
    samples = {name: _pool(pools, part.pool).take(part.rows) for name, part in parts.items()}
    return Split(**samples, seed=seed, indices=parts, labelled=pools.labelled, path=pools.path)


def _from_two(
    pools: Pools, rng: np.random.Generator, n_score: int, n_recovery: int, n_final: int
) -> Mapping[str, Part]:
    train, held_out = _order(_pool(pools, "train"), rng), _order(_pool(pools, "held_out"), rng)
    _require(len(train), _MIN_TRAIN, f"train images of {pools.path}", "score and recovery")
    _require(len(held_out), 1, f"held-out images of {pools.path}", "final")
    n_score = min(n_score, len(train) // 2)
    return {
        "score": _part("train", train[:n_score]),
        "recovery": _part("train", train[n_score : n_score + n_recovery]),
        "final": _part("held_out", held_out[:n_final]),
        "training": _part("train", train[n_score:]),
    }


def _from_single(order: Order, n_score: int, n_recovery: int, n_final: int, path: str) -> Mapping[str, Part]:
    _require(len(order), _MIN_SINGLE, f"images of {path}", "score, recovery and final")
    share = max(1, int(_SINGLE_SHARE * len(order)))
    score, rest, final = order[:share], order[share : 2 * share], order[2 * share :]
    training = np.concatenate([rest, score[n_score:], final[n_final:]])
    return {
        "score": _part("single", score[:n_score]),
        "recovery": _part("single", rest[:n_recovery]),
        "final": _part("single", final[:n_final]),
        "training": _part("single", training),
    }


def _pool(pools: Pools, name: PoolName) -> Samples:
    samples: Samples | None = getattr(pools, name)
    if samples is None:
        raise DataError(f"{pools.path} must have a {name} pool or be a single pool")
    return samples


def _require(n_images: int, n_needed: int, subject: str, parts: str) -> None:
    if n_images < n_needed:
        raise DataError(
            f"{subject} must be at least {n_needed}, got {n_images}",
            hint=f"One image each is needed for {parts}; some hundreds make a score that means something.",
        )


def _order(samples: Samples, rng: np.random.Generator) -> Order:
    """Returns a permutation of the rows by the key above; a plain shuffle without labels."""
    order = rng.permutation(len(samples)).astype(np.int64)
    if samples.labels is None or not len(samples) or samples.labels.ndim > 1 or samples.labels.dtype.kind == "f":
        return order
    labels = samples.labels[order]
    key = np.empty(len(order))
    for label in np.unique(labels):
        (rows,) = np.nonzero(labels == label)
        key[rows] = (np.arange(len(rows)) + rng.random()) / len(rows)
    return order[np.argsort(key, kind="stable")]


def _part(pool: PoolName, rows: Order) -> Part:
    return Part(pool=pool, rows=tuple(rows.tolist()))


def _rows_sha256(rows: tuple[int, ...]) -> str:
    return hashlib.sha256(np.sort(np.array(rows, dtype="<i8")).tobytes()).hexdigest()
