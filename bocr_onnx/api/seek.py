"""The search stretch of a run: journal, workers, strategy."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bocr_onnx.api.ground import Ground
from bocr_onnx.api.past import Recorder, recall
from bocr_onnx.api.run import Run
from bocr_onnx.errors import ModelError, ResumeError
from bocr_onnx.evaluation import Calibration, PolicyScorer
from bocr_onnx.options import Recovery
from bocr_onnx.search import (
    Evaluation,
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
from bocr_onnx.search.workers import make_workers, threads_each


@dataclass(frozen=True, slots=True)
class TrialScorer:
    """What the search maximizes: minus the logarithm of the output's distortion, after the fast recovery.

    Attributes:
        scorer: Scores policies.
        recovery: After the cut.
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
    return Problem(run.projection, curves, options.trials, options.seed, traits, options.of_strategies(), past)


def one_policy(problem: Problem, strategy: str) -> npt.NDArray[np.int64]:
    """Returns the widths of a strategy that names one policy."""
    proposal = find_strategy(strategy)(problem)((), ())
    assert proposal is not None
    return proposal.widths


def seek(run: Run, ground: Ground, known: tuple[Trial, ...] = ()) -> SearchResult:
    """Returns the result of the search; finished trials in the run's journal are not repeated.

    Args:
        run: The run.
        ground: What was measured before.
        known: Trials at other budgets of the same run.

    Raises:
        ResumeError: The journal belongs to another run.
        KeyboardInterrupt: The user stopped it; its trials are in the journal.
    """
    options, start = run.options, time.perf_counter()
    if options.search in ONE_POLICY:
        return SearchResult((), (one_policy(pose(run, ground.calibration, Past()), options.search),))
    header = _header(run, ground)
    journal = _open_journal(run, header)
    journal.check(run.projection.space)
    past = recall(run, ground, header, known, fresh=journal.is_new)
    problem = pose(run, ground.calibration, past)
    recorder = Recorder(run, problem, ground, header)
    for trial in journal.trials:
        recorder.add(trial)
    if journal.trials:
        run.progress.note(f"continuing after {len(journal.trials)} finished trials")
    workers = make_workers(_trial_scorer(run, ground.scorer), options.workers, options.ray)
    with run.progress.task(f"Search ({options.search})") as update:
        update(len(journal.trials), options.trials)

        def on_trial(trial: Trial) -> None:
            recorder.add(trial)
            update(len(journal.trials), options.trials)
            best = best_trial(journal.trials)
            if best is not None and best.number == trial.number and best.score is not None:
                run.progress.note(f"trial {trial.number + 1}: {best.score:.2%} ({trial.origin})")

        strategy = find_strategy(options.search)
        result = search(problem, strategy, workers, journal, on_trial=on_trial, race=options.race)
    run.seconds["search"] = time.perf_counter() - start
    if result.interrupted:
        raise KeyboardInterrupt
    if not result.finalists:
        reason = next((t.reason for t in result.trials if t.reason), "no trial was made")
        raise ModelError(f"all {len(result.trials)} trials failed; the first one with: {reason}")
    return result


def _trial_scorer(run: Run, scorer: PolicyScorer) -> TrialScorer:
    """Returns what scores trials; those that run at once share the cores, one on Ray has the one CPU it asks for."""
    options = run.options
    if options.ray is not None or options.workers > 1:
        scorer = replace(scorer, threads=1 if options.ray is not None else threads_each(options.workers))
    return TrialScorer(scorer, "none" if options.recover == "none" else "oneshot")


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
        "schema": 3,
        "model_sha256": run.graph.sha256,
        "data": ground.images.split.describe(),
        "images_sha256": ground.digest,
        "budget": dict(run.projection.budget.shares),
        "strategy": options.search,
        "settings": asdict(options.of_strategies()),
        "seed": options.seed,
        "race": options.race,
        "grid": options.grid,
        "freeze": list(options.freeze),
        "only": list(options.only),
        "min_width": options.min_width,
        "recover": options.recover,
    }
