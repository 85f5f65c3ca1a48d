"""Clusters of groups: alike together, from coarse to fine."""

from dataclasses import replace

import numpy as np

from bocr_onnx.search.proposals.clusters import cluster_features, cluster_phases
from tests.search.problems import problem


def curved(shapes, widths):
    """A problem whose error curves are given by functions of the share that is missing."""
    curves = tuple(f(1 - np.arange(n + 1) / n) for f, n in zip(shapes, widths, strict=True))
    return replace(problem(widths=widths), curves=curves)


def kinds(phase):
    return {frozenset(np.flatnonzero(phase == c).tolist()) for c in set(phase.tolist())}


def test_about_a_tenth_a_third_and_all_of_the_groups():
    for n, sizes in ((3, [2, 3]), (12, [2, 4, 12]), (30, [3, 10, 30])):
        widths = tuple(16 + 8 * (i * 7 % 11) for i in range(n))
        phases = cluster_phases(problem(widths=widths))
        assert [len(set(s.tolist())) for s in phases] == sizes
        assert all(s.min() == 0 and s.max() == size - 1 for s, size in zip(phases, sizes, strict=True))
        assert phases[-1].tolist() == list(range(n))


def test_few_groups_are_their_own_clusters():
    assert [s.tolist() for s in cluster_phases(problem(widths=(16, 32)))] == [[0, 1]]


def test_alike_groups_share_a_cluster():
    """Four kinds of three groups each, of one width, curve and depth."""
    shapes = [lambda m: m**2, lambda m: 5 * m, lambda m: 0.1 * m**4, np.sqrt]
    widths = tuple(np.repeat((16, 32, 128, 256), 3).tolist())
    phases = cluster_phases(curved(np.repeat(shapes, 3).tolist(), widths))
    assert kinds(phases[1]) == {frozenset(range(3 * i, 3 * i + 3)) for i in range(4)}
    assert len(kinds(phases[0])) == 2
    for fine in kinds(phases[1]):
        assert any(fine <= coarse for coarse in kinds(phases[0])), "a finer clustering crosses a coarser one"


def test_the_shape_of_the_error_curve_tells_groups_of_one_size_apart():
    shapes = [lambda m: m, lambda m: m**6] * 6
    coarse = cluster_phases(curved(shapes, (64,) * 12))[0]
    assert kinds(coarse) == {frozenset(range(0, 12, 2)), frozenset(range(1, 12, 2))}


def test_groups_that_change_gradually_are_split_near_the_middle():
    coarse = cluster_phases(curved([lambda m, i=i: m ** (1 + i / 4) for i in range(12)], (64,) * 12))[0]
    assert min(len(k) for k in kinds(coarse)) >= 3


def test_the_shape_of_a_curve_has_no_scale():
    features = cluster_features(curved([lambda m: m**2, lambda m: 9 * m**2, lambda m: m**3], (64,) * 3))
    assert np.allclose(features[0, 4:], features[1, 4:])
    assert features[0, 3] < features[1, 3]
    assert not np.allclose(features[0, 4:], features[2, 4:])


def test_features_have_one_scale():
    features = cluster_features(problem())
    assert features.shape == (6, 8)
    assert np.allclose(features.mean(axis=0), 0)
    assert np.allclose(features.std(axis=0)[[0, 1, 2, 3]], 1)
    assert np.all(np.diff(features[:, 0]) > 0)
    assert np.all(np.diff(features[::2, 1]) > 0)


def test_scaling_all_curves_changes_no_cluster():
    asked = problem()
    scaled = replace(asked, curves=tuple(100 * c for c in asked.curves))
    for here, there in zip(cluster_phases(asked), cluster_phases(scaled), strict=True):
        assert here.tolist() == there.tolist()


def test_clusters_depend_on_the_problem_alone():
    one, two = (cluster_phases(problem(seed=seed)) for seed in (0, 1))
    assert [s.tolist() for s in one] == [s.tolist() for s in two]
