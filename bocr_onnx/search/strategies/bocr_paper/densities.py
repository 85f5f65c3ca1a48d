"""Clusters of groups as published: Ward linkage on how alike groups are.

    euclidean        L2 distance between the densities of the groups' channel importances
    jensen-shannon   Jensen-Shannon distance between the same densities
    structural       L2 distance between c_in, c_out, kernel, weights, MACs, output size and c_in / c_out of the
                     operator that reads the group, each divided by its largest value

A density is a Gaussian kernel estimate (Scott's bandwidth) of the importances minus their median, on 1,000 points of
[-15, 15]. The published grid suits the sums of absolute weights of small networks; here one factor for all groups
gives the group of median spread a standard deviation of 2.5, so what is wide stays wider than what is narrow. No
bandwidth is below two grid steps: a group of one channel, or of equal channels, becomes a narrow peak.

References:
    Fan, Mu, Zhang, "Bayesian Optimization with Clustering and Rollback for CNN Auto Pruning", ECCV 2022, section 3.2.
"""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.spatial.distance import pdist

from bocr_onnx.search.problem import Floats, Problem
from bocr_onnx.search.proposals.clusters import Clusters
from bocr_onnx.search.readers import GroupReader

GRID = np.linspace(-15, 15, 1_000)
STEP = float(GRID[1] - GRID[0])
MEDIAN_SPREAD = 2.5
MIN_BANDWIDTH = 2 * STEP


def densities(importances: tuple[Floats, ...]) -> Floats:
    """Returns the density of each group's channel importances, shape `(n_groups, 1000)`.

    Args:
        importances: Importances of every group, shape `(n_channels,)`, in any unit that the groups share.

    Example:
        >>> found = densities((np.array([1.0, 2.0, 4.0]), np.array([7.0])))
        >>> np.round(found.sum(axis=1) * STEP, 3).tolist()
        [1.0, 1.0]
    """
    shifted = [values - np.median(values) for values in importances]
    spreads = [float(values.std()) for values in shifted if values.std() > 1e-12]
    scale = MEDIAN_SPREAD / float(np.median(spreads)) if spreads else 1.0
    return np.array([_density(values * scale) for values in shifted])


def _density(values: Floats) -> Floats:
    """Returns what `scipy.stats.gaussian_kde` gives, with a floor under the bandwidth that it would divide by."""
    n = len(values)
    spread = float(values.std(ddof=1)) if n > 1 else 0.0
    bandwidth = max(n**-0.2 * spread, MIN_BANDWIDTH)
    total = np.zeros_like(GRID)
    for part in np.array_split(values, n // 256 + 1):
        total += np.exp(-0.5 * ((GRID[:, None] - part) / bandwidth) ** 2).sum(axis=1)
    return np.asarray(total / (n * bandwidth * np.sqrt(2 * np.pi)))


def distances(problem: Problem) -> Floats:
    """Returns the distance of every pair of groups that can be cut, condensed as `scipy.spatial.distance.pdist` does.

    Args:
        problem: Says by which similarity.
    """
    kind = problem.settings.similarity
    readers = tuple(problem.readers[i] for i in problem.space.free)
    if kind == "structural":
        return np.asarray(pdist(structure(readers)))
    found = densities(tuple(np.array(t.importance, dtype=np.float64) for t in readers))
    if kind == "euclidean":
        return np.asarray(pdist(found) * np.sqrt(STEP))
    masses = found / found.sum(axis=1, keepdims=True)
    return np.nan_to_num(pdist(masses, "jensenshannon"))  # the root of a divergence of -1e-17 is not a number


def structure(readers: tuple[GroupReader, ...]) -> Floats:
    """Returns the published structural features, shape `(n_groups, 7)`, each in [0, 1]."""
    rows = [
        (t.n_inputs, t.n_outputs, t.kernel, t.n_params, t.macs, np.sqrt(t.n_positions), t.n_inputs / t.n_outputs)
        for t in readers
    ]
    columns = np.array(rows, dtype=np.float64).reshape(-1, 7)
    return np.asarray(columns / np.maximum(columns.max(axis=0), 1e-12))


def cluster_counts(n_groups: int, rollback: str) -> tuple[int, ...]:
    """Returns into how many clusters the groups are cut, phase by phase: a ninth, a third and all of them.

    At least two and three, because one cluster on a budget is one policy; phases that would be alike are one.

    Args:
        n_groups: Groups that can be cut.
        rollback: "gradual"; "direct" leaves the bridge out, "none" all but the last.

    Example:
        >>> [cluster_counts(27, kind) for kind in ("gradual", "direct", "none")]
        [(3, 9, 27), (3, 27), (27,)]
        >>> cluster_counts(6, "gradual"), cluster_counts(1, "gradual")
        ((2, 3, 6), (1,))
    """
    start, bridge = max(2, round(n_groups / 9)), max(3, round(n_groups / 3))
    asked = {"gradual": (start, bridge), "direct": (start,), "none": ()}[rollback]
    return (*sorted({n for n in asked if n < n_groups}), n_groups)


def published_clusters(problem: Problem) -> tuple[Clusters, ...]:
    """Returns the clustering of each phase: the cluster of every group, -1 where it cannot be cut."""
    free = problem.space.free
    counts = cluster_counts(len(free), problem.settings.rollback)
    phases = []
    tree = linkage(distances(problem), method="ward") if len(counts) > 1 else None
    for count in counts:
        clusters = np.full(len(problem.space.full), -1, dtype=np.int64)
        clusters[free] = np.arange(count) if tree is None or count == len(free) else cut_tree(tree, [count])[:, 0]
        phases.append(clusters)
    return tuple(phases)
