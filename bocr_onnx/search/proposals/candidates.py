"""The pool of candidates an acquisition chooses from.

Everything is proposed as a full vector of keep ratios, so a cluster only shapes *moves*: its groups are shifted by
one amount in logit space. Five kinds of moves, mixed in fixed shares:

    cluster      the incumbent (or another elite) with some clusters shifted
    transfer     one cluster gives, another takes
    crossover    two elites, cluster by cluster
    local        the incumbent with independent noise on a few groups
    global       quasi-random ratios
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit

from bocr_onnx.search.proposals.clusters import Clusters
from bocr_onnx.search.space import Point

SHARES = {"cluster": 0.3, "transfer": 0.25, "crossover": 0.1, "local": 0.25, "global": 0.1}
_EDGE = 1e-3


def draw_candidates(
    elites: Point, low: Point, clusters: Clusters, radius: float, n: int, rng: np.random.Generator
) -> Point:
    """Returns candidates before projection, shape `(n, n_groups)`, keep ratios in [low, 1].

    Args:
        elites: Best executed points first, shape `(n_elites, n_groups)`.
        low: Smallest ratios, shape `(n_groups,)`.
        clusters: Cluster number of every group.
        radius: Standard deviation of a shift, in logits.
        n: How many.
        rng: Source of the draw.
    """
    from scipy.stats import qmc  # half a second, which no help page should take

    logits = logit(np.clip(elites, _EDGE, 1 - _EDGE))
    counts = [int(share * n) for share in SHARES.values()]
    counts[-1] = n - sum(counts[:-1])
    makers = (_cluster, _transfer, _crossover, _local)
    made = [maker(logits, clusters, radius, count, rng) for maker, count in zip(makers, counts[:-1], strict=True)]
    spread = qmc.Sobol(len(low), seed=rng).random_base2(max(counts[-1], 1).bit_length())[: counts[-1]]
    ratios = np.concatenate([expit(np.concatenate(made)), low + (1 - low) * spread])
    return np.asarray(np.clip(ratios, low, 1))


def _parents(logits: Point, count: int, rng: np.random.Generator) -> Point:
    """Returns elites drawn with the first half of the time the best one."""
    chosen = np.where(rng.random(count) < 0.5, 0, rng.integers(len(logits), size=count))
    return logits[chosen]


def _cluster(logits: Point, clusters: Clusters, radius: float, count: int, rng: np.random.Generator) -> Point:
    n_clusters = int(clusters.max()) + 1
    shifts = rng.normal(0, radius, (count, n_clusters))
    active = rng.random((count, n_clusters)) < min(1.0, 2.0 / n_clusters + 0.1)
    return np.asarray(_parents(logits, count, rng) + (shifts * active)[:, clusters])


def _transfer(logits: Point, clusters: Clusters, radius: float, count: int, rng: np.random.Generator) -> Point:
    n_clusters = int(clusters.max()) + 1
    made = _parents(logits, count, rng).copy()
    giver, taker = rng.integers(n_clusters, size=count), rng.integers(n_clusters, size=count)
    amount = np.abs(rng.normal(0, radius, count))[:, None]
    made -= amount * (clusters[None] == giver[:, None])
    made += amount * (clusters[None] == taker[:, None])
    return made


def _crossover(logits: Point, clusters: Clusters, radius: float, count: int, rng: np.random.Generator) -> Point:
    first, second = _parents(logits, count, rng), logits[rng.integers(len(logits), size=count)]
    take = rng.random((count, int(clusters.max()) + 1)) < 0.5
    return np.asarray(np.where(take[:, clusters], first, second))


def _local(logits: Point, clusters: Clusters, radius: float, count: int, rng: np.random.Generator) -> Point:
    n = logits.shape[1]
    active = rng.random((count, n)) < min(1.0, max(3.0 / n, 0.15))
    return np.asarray(_parents(logits, count, rng) + rng.normal(0, radius, (count, n)) * active)
