"""`local`: the same starts and moves as `bocr`, but no surrogate chooses among them.

From the best policy so far a few groups are shifted at random and the result is projected onto the budget; the
radius grows with every improvement and shrinks without one (the 1/5 rule).

References:
    Rechenberg, "Evolutionsstrategie", 1973 (the 1/5 rule).
"""

from __future__ import annotations

import numpy as np

from bocr_onnx.cost import Widths
from bocr_onnx.search.problem import Problem
from bocr_onnx.search.proposals.candidates import draw_candidates
from bocr_onnx.search.proposals.starts import scatter, start_policies
from bocr_onnx.search.racing import objectives
from bocr_onnx.search.strategies.records import Propose
from bocr_onnx.search.trial import Proposal, Trial, ratios, scored

START_RADIUS, MIN_RADIUS, MAX_RADIUS = 0.5, 0.1, 1.5
GROW = 1.5
SHRINK = GROW**-0.25
N_ATTEMPTS = 20


def local(problem: Problem) -> Propose:
    """Proposes perturbations of the best policy so far."""
    starts = start_policies(problem)

    def propose(trials: tuple[Trial, ...], pending: tuple[Widths, ...]) -> Proposal | None:
        number = len(trials) + len(pending)
        if number < len(starts):
            return starts[number]
        rng = problem.rng(number)
        done = scored(trials)
        if not done:
            return scatter(problem, rng)
        best = ratios(done, problem.space.full)[[int(np.argmax(objectives(done)))]]
        tried = {t.widths for t in trials} | {tuple(int(w) for w in widths) for widths in pending}
        groups = np.arange(len(problem.space.full))
        low = problem.space.low / problem.space.full
        for point in draw_candidates(best, low, groups, radius_of(trials), N_ATTEMPTS, rng):
            widths = problem.projection.execute(point)
            if tuple(int(w) for w in widths) not in tried:
                return Proposal(widths, "local")
        return scatter(problem, rng)

    return propose


def radius_of(trials: tuple[Trial, ...]) -> float:
    """Returns the radius that a history has reached, in logits."""
    best, radius = -np.inf, START_RADIUS
    for trial in trials:
        improved = trial.objective is not None and trial.objective > best
        if improved and trial.objective is not None:
            best = trial.objective
        if trial.origin == "local":
            radius = float(np.clip(radius * (GROW if improved else SHRINK), MIN_RADIUS, MAX_RADIUS))
    return radius
