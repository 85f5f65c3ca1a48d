"""The allocation on the error curves is the best one, or nearly, also where cost falls in steps."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from bocr_onnx.cost import LatencyModel
from bocr_onnx.search import Budget, allocate
from bocr_onnx.search.allocation import STEPS, _greedy
from tests.search.problems import problem


def asked(seed, *, share, grid=8, bound="flops", block=1):
    """Four groups whose curves are random, convex or not; latency pads to whole blocks."""
    rng = np.random.default_rng(seed)
    base = problem(widths=(32, 64, 32, 64), share=share, grid=grid)
    curves = []
    for n in base.space.full:
        steps = rng.exponential(size=n + 1) * np.linspace(rng.uniform(0.5, 4), 0.2, n + 1)
        steps[-1] = 0
        curves.append(np.cumsum(steps[::-1])[::-1] * rng.uniform(0.2, 2))
    n_features = base.projection.cost.features(block).macs.shape[-1]
    model = LatencyModel(block, (0.1, *[0.9 / n_features] * n_features), 1.0, 0.0)
    cost = replace(base.projection.cost, latency=model)
    return replace(
        base, curves=tuple(curves), projection=replace(base.projection, cost=cost, budget=Budget({bound: share}))
    )


def error(problem, widths):
    return sum(float(curve[w]) for curve, w in zip(problem.curves, widths, strict=True))


def best(problem):
    """By trying every policy there is."""
    policies = np.array(list(itertools.product(*problem.space.choices)))
    fitting = policies[problem.projection.budget.use(problem.projection.cost, policies) <= 1]
    return min(error(problem, widths) for widths in fitting)


@pytest.mark.parametrize(("bound", "block"), [("flops", 1), ("latency", 16), ("latency", 8)])
def test_it_is_the_best_of_all_policies_or_nearly(bound, block):
    found, greedy, least = [], [], []
    for seed, share in itertools.product(range(6), (0.35, 0.5, 0.7)):
        one = asked(seed, share=share, bound=bound, block=block)
        widths = allocate(one)
        assert one.space.holds(widths.tolist())
        assert one.projection.budget.use(one.projection.cost, widths[None])[0] <= 1
        found.append(error(one, widths))
        greedy.append(error(one, _greedy(one, list(one.curves))))
        least.append(best(one))
    excess = np.array(found) / least - 1
    assert excess.max() < 0.08, excess
    assert np.mean(excess < 1e-9) >= 0.7, excess
    assert excess.mean() < 0.5 * (np.array(greedy) / least - 1).mean()


def test_it_leaves_a_plateau_that_is_wider_than_a_step():
    """On a grid of one, time that falls every sixteen channels does not fall at a single step."""
    fine = asked(0, share=0.5, grid=1, bound="latency", block=16)
    coarse = asked(0, share=0.5, grid=16, bound="latency", block=16)
    assert max(STEPS) >= 16
    assert error(fine, allocate(fine)) <= error(coarse, allocate(coarse)) * 1.001


def test_one_group_that_is_free_takes_it_all():
    one = asked(3, share=0.6)
    space = replace(one.space, choices=(one.space.choices[0], *(c[-1:] for c in one.space.choices[1:])))
    one = replace(one, projection=replace(one.projection, space=space, budget=Budget({"flops": 0.9})))
    widths = allocate(one)
    assert widths[1:].tolist() == one.space.full[1:].tolist()
    assert one.projection.budget.use(one.projection.cost, widths[None])[0] <= 1
