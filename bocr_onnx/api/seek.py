"""The search stretch of a run: journal, workers, strategy."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bocr_onnx.api.ground import Ground
from bocr_onnx.api.run import Run
from bocr_onnx.errors import ResumeError
from bocr_onnx.evaluation import Calibration, PolicyScorer, Recovery
from bocr_onnx.search import (
    Evaluation,
    Inline,
    Journal,
    Past,
    Problem,
    SearchResult,
    Trial,
    best_trial,
    group_traits,
    search,
)
from bocr_onnx.search.strategies import ONE_POLICY, find_strategy


@dataclass(frozen=True, slots=True)
class TrialScorer:
    """What the search maximizes: minus the logarithm of the output's distortion, behind the fast recovery.

    Attributes:
        scorer: Scores policies.
        recovery: Behind the cut.
    """

    scorer: PolicyScorer
    recovery: Recovery

    def __call__(self, widths: npt.NDArray[np.int64], floor: float | None) -> Evaluation:
        """Returns the evaluation of a policy; see `bocr_onnx.search.trial.Scorer`."""
        ceiling = None if floor is None else float(np.exp(-floor))
        found, _ = self.scorer.score(widths, self.recovery, ceiling=ceiling)
        whole = None if found.distortion is None else _objective(found.distortion)
        return Evaluation(found.score.value, whole, _objective(found.first), found.seconds)


def _objective(distortion: float) -> float:
    return -float(np.log(distortion + 1e-12))


def pose(run: Run, calibration: Calibration, past: Past) -> Problem:
    """Returns the problem a strategy is given."""
    options = run.options
    traits = group_traits(run.graph, run.index, run.cost, calibration.affines)
    curves = calibration.sensitivity.curves
    return Problem(run.projection, curves, run.n_trials, options.seed, traits, options.settings, past)


def one_policy(problem: Problem, strategy: str) -> npt.NDArray[np.int64]:
    """Returns the widths of a strategy that names one policy."""
    proposal = find_strategy(strategy)(problem)((), ())
    assert proposal is not None
    return proposal.widths


def seek(run: Run, ground: Ground, past: Past) -> SearchResult:
    """Returns the result of the search; finished trials in the run's journal are not repeated.

    Raises:
        ResumeError: The journal belongs to another run.
        KeyboardInterrupt: The user stopped it; its trials are in the journal.
    """
    options, problem = run.options, pose(run, ground.calibration, past)
    if options.strategy in ONE_POLICY:
        return SearchResult((), (one_policy(problem, options.strategy),))
    start = time.perf_counter()
    journal = _open_journal(run, _header(run, ground))
    journal.check(run.projection.space)
    if journal.trials:
        run.progress.note(f"continuing behind {len(journal.trials)} finished trials")
    workers = Inline(TrialScorer(ground.scorer, "none" if options.recover == "none" else "oneshot"))
    with run.progress.task(f"Search ({options.strategy})") as update:
        update(len(journal.trials), run.n_trials)

        def on_trial(trial: Trial) -> None:
            update(len(journal.trials), run.n_trials)
            best = best_trial(journal.trials)
            if best is not None and best.number == trial.number and best.score is not None:
                run.progress.note(f"trial {trial.number + 1}: {best.score:.2%} ({trial.origin})")

        strategy = find_strategy(options.strategy)
        result = search(problem, strategy, workers, journal, on_trial=on_trial, race=options.race)
    run.seconds["search"] = time.perf_counter() - start
    if result.interrupted:
        raise KeyboardInterrupt
    return result


def _open_journal(run: Run, header: dict[str, Any]) -> Journal:
    """Returns the journal; without --resume, one of another search is set aside and not continued."""
    try:
        return Journal(run.run_dir.journal, header)
    except ResumeError:
        if run.resuming:
            raise
    run.run_dir.set_journal_aside()
    return Journal(run.run_dir.journal, header)


def _header(run: Run, ground: Ground) -> dict[str, Any]:
    options = run.options
    return {
        "schema": 2,
        "model_sha256": run.graph.sha256,
        "data": ground.images.split.describe(),
        "budget": run.projection.budget.given,
        "strategy": options.strategy,
        "settings": asdict(options.settings),
        "seed": options.seed,
        "race": options.race,
        "grid": options.grid,
        "freeze": list(options.freeze),
        "only": list(options.only),
        "min_width": options.min_width,
        "recover": options.recover,
    }
