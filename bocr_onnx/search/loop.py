"""The loop: propose, journal, score, journal; and the choice at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bocr_onnx.cost import Widths
from bocr_onnx.errors import BocrError
from bocr_onnx.search.journal import Journal
from bocr_onnx.search.problem import Problem
from bocr_onnx.search.strategies import Strategy
from bocr_onnx.search.trial import Scorer, Trial, TrialState, completed, ratios

OnTrial = Callable[[Trial], None]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found.

    Attributes:
        trials: In order.
        finalists: The best policies, best first: highest posterior mean where there is a surrogate.
        interrupted: Whether the user stopped it.
    """

    trials: tuple[Trial, ...]
    finalists: tuple[Widths, ...]
    interrupted: bool = False


def search(
    problem: Problem,
    strategy: Strategy,
    scorer: Scorer,
    journal: Journal,
    *,
    on_trial: OnTrial | None = None,
    n_finalists: int = 3,
) -> SearchResult:
    """Runs a search to its number of trials, or until Ctrl-C.

    Args:
        problem: Space, budget, number of trials and seed.
        strategy: Proposes policies.
        scorer: Scores them.
        journal: Holds the trials that an earlier run has finished; every new one is written.
        on_trial: Told after each trial.
        n_finalists: How many policies to return.
    """
    interrupted = False
    try:
        while len(journal.trials) < problem.n_trials:
            trials = journal.trials
            proposal = strategy(problem, trials)
            if proposal is None:
                break
            trial = _run(len(trials), proposal, problem, scorer, journal)
            if on_trial:
                on_trial(trial)
    except KeyboardInterrupt:
        interrupted = True
    trials = journal.trials
    return SearchResult(trials, _finalists(problem, trials, n_finalists), interrupted)


def _run(number: int, proposal: tuple[Widths, str], problem: Problem, scorer: Scorer, journal: Journal) -> Trial:
    widths, origin = proposal
    key = tuple(int(w) for w in widths)
    journal.write(Trial(number, key, TrialState.PROPOSED, origin=origin))
    used = problem.projection.budget.use(problem.projection.cost, widths[None])[0]
    if used > 1:
        trial = Trial(number, key, TrialState.INFEASIBLE, origin=origin, reason=f"it uses {used:.3f} of the budget")
    else:
        try:
            found = scorer(widths)
            trial = Trial(number, key, TrialState.COMPLETE, found.score, found.objective, found.seconds, origin=origin)
        except (BocrError, MemoryError, np.linalg.LinAlgError) as error:
            trial = Trial(number, key, TrialState.FAILED, origin=origin, reason=str(error))
    journal.write(trial)
    return trial


def _finalists(problem: Problem, trials: tuple[Trial, ...], n: int) -> tuple[Widths, ...]:
    done = completed(trials)
    values = np.array([t.objective for t in done], dtype=np.float64)
    if len(done) > 2 * n:
        from bocr_onnx.search.surrogate import fit_surrogate

        points = ratios(done, problem.space.full)
        values = fit_surrogate(points, problem.proxy(points), values).posterior_mean()
    order = np.argsort(-values, kind="stable")
    unique = list(dict.fromkeys(done[i].widths for i in order))
    return tuple(np.array(w, dtype=np.int64) for w in unique[:n])
