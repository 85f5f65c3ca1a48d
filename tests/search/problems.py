"""A search problem whose best policy is known, for the contract of strategies."""

import numpy as np

from bocr_onnx.search import Budget, Evaluation, GroupReader, Problem, Projection, build_space
from tests.search.test_projection import chain


def problem(widths=(32, 32, 64, 64, 128, 128), share=0.5, n_trials=20, seed=0, grid=1):
    """A chain whose groups differ in sensitivity; the curves the search is told are only roughly right."""
    cost, index = chain(list(widths))
    told = []
    for i, n in enumerate(widths):
        missing = 1 - np.arange(n + 1) / n
        told.append((0.5 + i % 2) * missing**2)
    projection = Projection(build_space(index, grid=grid), cost, Budget({"flops": share}))
    readers = tuple(GroupReader(n, n, 1, 1, 0, 0.0, 1, (1.0,) * n) for n in widths)
    return Problem(projection, tuple(told), n_trials, seed, readers)


def scorer(asked, noise=0.0):
    """The truth: sensitivity rises with depth, unlike what the curves say."""
    rng = np.random.default_rng(0)

    def score(widths, floor=None):
        missing = 1 - widths / asked.space.full
        weight = np.linspace(0.3, 2.0, len(missing))
        error = float(np.sum(weight * missing**2)) + noise * float(rng.normal())
        objective = -np.log(error + 1e-9)
        return Evaluation(1 / (1 + error), objective, objective, 0.0)

    return score


def coupled(asked, number):
    """A truth in which what one group loses weighs more where others lose too; the curves know nothing of it."""
    rng, n = np.random.default_rng(number), len(asked.space.full)
    weight = rng.uniform(0.2, 1.5, n)
    pairs = np.triu(rng.uniform(0, 3, (n, n)) * (rng.random((n, n)) < 0.3), 1)

    def score(widths, floor=None):
        missing = 1 - widths / asked.space.full
        error = float(weight @ missing**2 + missing @ pairs @ missing)
        objective = -np.log(error + 1e-9)
        return Evaluation(1 / (1 + error), objective, objective, 0.0)

    return score
