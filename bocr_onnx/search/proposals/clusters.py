"""Clusters of groups that move together while the search is young.

Groups are compared by what they cost, how sensitive they are and the shape of their error curve, and joined by
Ward linkage. Cutting the tree at 3, then at more, then at all groups gives the phases of the search.

References:
    Fan, Mu, Zhang, "Bayesian Optimization with Clustering and Rollback for CNN Auto Pruning", ECCV 2022, section 3.2
    (there: density of the layer's channel importances).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage

from bocr_onnx.search.problem import Problem

Clusters = npt.NDArray[np.int64]
"""Cluster number of every group, shape `(n_groups,)`."""


def cluster_features(problem: Problem) -> npt.NDArray[np.float64]:
    """Returns what groups are compared by, shape `(n_groups, 8)`, every column with standard deviation one.

    Columns: depth, log channels, share of the budget, log sensitivity at half width, and the error curve at keep
    ratios 0.2, 0.4, 0.6, 0.8 as shares of its largest value.
    """
    n = len(problem.space.full)
    share = problem.projection.cost.shares()
    shapes = problem.errors_at(np.array([0.2, 0.4, 0.6, 0.8])) / np.maximum([[c[0]] for c in problem.curves], 1e-12)
    (half,) = problem.errors_at(np.array([0.5])).T
    columns = [np.arange(n) / max(n - 1, 1), np.log(problem.space.full), share, np.log(half + 1e-6), *shapes.T]
    features = np.stack(columns, axis=1)
    spread = features.std(axis=0)
    return np.asarray((features - features.mean(axis=0)) / np.where(spread > 1e-12, spread, 1.0))


def cluster_tree(problem: Problem) -> npt.NDArray[np.float64]:
    """Returns the tree of groups as scipy's `linkage` gives it, shape `(n_groups - 1, 4)`; empty for a single group."""
    if len(problem.space.full) < 2:
        return np.empty((0, 4))
    return np.asarray(linkage(cluster_features(problem), method="ward"))


def cluster_phases(problem: Problem) -> tuple[Clusters, ...]:
    """Returns the clusterings from coarse to fine: about a tenth, a third and all of the groups."""
    n = len(problem.space.full)
    if n < 3:
        return (np.arange(n),)
    tree = cluster_tree(problem)
    sizes = sorted({min(n, max(2, round(n / 10))), min(n, max(3, round(n / 3))), n})
    coarse = [fcluster(tree, size, criterion="maxclust").astype(np.int64) - 1 for size in sizes[:-1]]
    return (*coarse, np.arange(n))
