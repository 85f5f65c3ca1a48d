"""The loop: propose, journal, score, journal; and the choice at the end.

With q workers trial k is proposed from the results of trials 0 .. k - q, whichever of the later ones have ended by
then; those count as pending. So the proposals depend on the seed alone and not on who is faster, and a search that is
continued proposes what an uninterrupted one would have.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from bocr_onnx.cost import Widths
from bocr_onnx.search import racing
from bocr_onnx.search.journal import Journal
from bocr_onnx.search.problem import Problem
from bocr_onnx.search.strategies import Propose, Strategy
from bocr_onnx.search.trial import Evaluation, Proposal, Trial, TrialState, completed, ratios, scored
from bocr_onnx.search.workers import Job, Outcome, Workers

OnTrial = Callable[[Trial], None]
N_FINALISTS = 8
"""Scores after the fast recovery hardly rank good policies, so several are recovered in earnest: on ResNet-20 at 0.3 of
the MACs, eight take 2 % off the distortion that three leave."""

RANKED = 6
"""Trials from which the surrogate ranks better than the scores themselves."""

GAIN = 0.01
"""What the objective must rise by, one per cent of the distortion, for a trial to have gained something."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found.

    Attributes:
        trials: In order.
        finalists: The best policies, best first: highest posterior mean where there is a surrogate; the first policy
            of the search is always among them, so that what is chosen is never worse than what it began with.
        interrupted: Whether the user stopped it.
    """

    trials: tuple[Trial, ...]
    finalists: tuple[Widths, ...]
    interrupted: bool = False


def search(
    problem: Problem,
    strategy: Strategy,
    workers: Workers,
    journal: Journal,
    *,
    on_trial: OnTrial | None = None,
    race: bool = True,
) -> SearchResult:
    """Runs a search to its number of trials, or until Ctrl-C.

    Args:
        problem: Space, budget, number of trials and seed.
        strategy: Proposes policies.
        workers: Score them.
        journal: Holds the trials that an earlier run has finished; every new one is written.
        on_trial: Told after each trial.
        race: Whether hopeless trials are stopped on the first slice of images.
    """
    try:
        _Run(problem, strategy(problem), workers, journal, on_trial, race).go()
    except KeyboardInterrupt:
        return SearchResult(journal.trials, (), interrupted=True)
    finally:
        workers.close()
    return SearchResult(journal.trials, _finalists(problem, journal.trials))


def stalled(trials: Sequence[Trial]) -> int:
    """Returns how many trials have passed since one has gained something.

    Args:
        trials: In order; what was not scored on all images gains nothing.
    """
    best, since = -np.inf, 0
    for trial in trials:
        since += 1
        if trial.objective is not None and trial.objective > best + GAIN:
            best, since = trial.objective, 0
    return since


@dataclass(slots=True)
class _Run:
    """A search under way.

    Attributes:
        started: Trials that were handed to a worker and have not ended, by number.
        ended: The others, by number.
    """

    problem: Problem
    propose: Propose
    workers: Workers
    journal: Journal
    on_trial: OnTrial | None
    race: bool
    started: dict[int, Trial] = field(default_factory=dict)
    ended: dict[int, Trial] = field(default_factory=dict)

    def go(self) -> None:
        """Proposes and collects until all trials have ended."""
        self.ended = {t.number: t for t in self.journal.trials}
        for number in range(self.problem.n_trials):
            if number in self.ended:
                continue
            needed = range(number - self.workers.n_workers + 1)
            while any(n not in self.ended for n in needed):
                self._take(self.workers.collect())
            known = tuple(self.ended[n] for n in needed)
            if 0 < self.problem.patience <= stalled(known) or not self._start(number, known):
                break
        while self.started:
            self._take(self.workers.collect())

    def _start(self, number: int, known: tuple[Trial, ...]) -> bool:
        """Returns whether there was something to try as trial `number`."""
        unknown = [self.ended.get(n) or self.started[n] for n in range(len(known), number)]
        begin = time.perf_counter()
        proposal = self.propose(known, tuple(np.array(t.widths, dtype=np.int64) for t in unknown))
        if proposal is None:
            return False
        trial = self._proposed(number, proposal, time.perf_counter() - begin)
        self.journal.write(trial)
        used = self.problem.projection.budget.use(self.problem.projection.cost, proposal.widths[None])[0]
        if used > 1:
            self._end(trial, state=TrialState.INFEASIBLE, reason=f"it uses {used:.3f} of the budget")
            return True
        self.started[number] = trial
        self.workers.submit(Job(number, trial.widths, racing.floor(known) if self.race else None))
        return True

    def _proposed(self, number: int, proposal: Proposal, seconds: float) -> Trial:
        widths = tuple(int(w) for w in proposal.widths)
        return Trial(number, widths, TrialState.PROPOSED, origin=proposal.origin, proposal_s=seconds)

    def _take(self, outcome: Outcome) -> None:
        trial, found = self.started.pop(outcome.number), outcome.evaluation
        if found is None:
            self._end(trial, state=TrialState.FAILED, reason=outcome.reason)
            return
        if not (np.isfinite(found.first) and np.isfinite(found.objective or 0.0)):
            self._end(trial, state=TrialState.FAILED, reason="its objective is not a number")
            return
        stopped = found.objective is None
        self._end(
            trial,
            state=TrialState.STOPPED if stopped else TrialState.COMPLETE,
            reason="hopeless on the first images" if stopped else "",
            found=found,
        )

    def _end(self, trial: Trial, *, state: TrialState, reason: str, found: Evaluation | None = None) -> None:
        measured = {} if found is None else asdict(found)
        trial = replace(trial, state=state, reason=reason, **measured)
        self.journal.write(trial)
        self.ended[trial.number] = trial
        if self.on_trial:
            self.on_trial(trial)


def _finalists(problem: Problem, trials: tuple[Trial, ...], n: int = N_FINALISTS) -> tuple[Widths, ...]:
    done = completed(trials)
    if not done:
        return ()
    values = np.array([t.objective for t in done], dtype=np.float64)
    if len(done) > RANKED:
        from bocr_onnx.search.proposals.surrogate import fit_surrogate

        known = scored(problem.prior.same + trials)
        surrogate = fit_surrogate(problem, ratios(known, problem.space.full), racing.objectives(known))
        values = surrogate.posterior_mean(ratios(done, problem.space.full))
    order = np.argsort(-values, kind="stable")
    unique = list(dict.fromkeys(done[i].widths for i in order))
    best, rest = unique[: n - 1], (done[0].widths, *unique[n - 1 :])
    chosen = [*best, *(w for w in rest if w not in best)][:n]
    return tuple(np.array(w, dtype=np.int64) for w in dict.fromkeys(chosen))
