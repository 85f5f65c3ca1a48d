"""The search stage: journal, workers, strategy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bocr_onnx.errors import ModelError, ResumeError
from bocr_onnx.options import Recovery, StrategyOptions, part
from bocr_onnx.pipeline.history import Recorder, recall
from bocr_onnx.pipeline.measure import digest_of
from bocr_onnx.pipeline.run import Run
from bocr_onnx.recovery import PolicyScorer
from bocr_onnx.search import (
    Evaluation,
    Journal,
    Prior,
    Problem,
    SearchResult,
    Trial,
    best_trial,
    group_readers,
)
from bocr_onnx.search import search as search_policies
from bocr_onnx.search.strategies import STRATEGIES
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


def pose(run: Run, prior: Prior) -> Problem:
    """Returns the problem a strategy is given."""
    options, calibration = run.options, run.calibration
    assert calibration is not None
    readers = group_readers(run.index, run.cost, calibration.affines)
    curves = calibration.sensitivity.curves
    patience = options.patience if STRATEGIES[options.search].stops else 0
    settings = part(StrategyOptions, options)
    return Problem(run.projection, curves, options.trials, options.seed, readers, settings, prior, patience)


def one_policy(problem: Problem, strategy: str) -> npt.NDArray[np.int64]:
    """Returns the widths of a strategy that names one policy."""
    proposal = STRATEGIES[strategy].strategy(problem)((), ())
    assert proposal is not None
    return proposal.widths


def search(run: Run) -> Run:
    """Returns the run with the result of its search; finished trials in its journal are not repeated.

    Raises:
        ResumeError: The journal belongs to another run.
        KeyboardInterrupt: The user stopped it; its trials are in the journal.
    """
    options = run.options
    if not STRATEGIES[options.search].scored:
        return replace(run, result=SearchResult((), (one_policy(pose(run, Prior()), options.search),)))
    assert run.scorer is not None
    header = _header(run)
    journal = _open_journal(run, header)
    journal.check(run.projection.space)
    problem = pose(run, recall(run, header, fresh=journal.is_new))
    recorder = Recorder(run, problem, header)
    for trial in journal.trials:
        recorder.add(trial)
    if journal.trials:
        run.progress.note(f"continuing after {len(journal.trials)} finished trials")
    workers = make_workers(_trial_scorer(run, run.scorer), options.workers, options.ray)
    with run.progress.task(f"Search ({options.search})") as update:
        update(len(journal.trials), options.trials)

        def on_trial(trial: Trial) -> None:
            recorder.add(trial)
            update(len(journal.trials), options.trials)
            best = best_trial(journal.trials)
            is_best = best is not None and best.number == trial.number
            tell = run.progress.note if is_best else run.progress.detail
            if trial.score is not None:
                tell(
                    f"trial {trial.number + 1}: {trial.score:.2%} ({trial.origin}{'' if is_best else ', not the best'})"
                )

        strategy = STRATEGIES[options.search].strategy
        result = search_policies(problem, strategy, workers, journal, on_trial=on_trial, race=options.race)
    if result.interrupted:
        raise KeyboardInterrupt
    if len(result.trials) < options.trials:
        run.progress.note(
            f"search ended after {len(result.trials)} of {options.trials} trials: {options.patience} of them gained "
            "nothing (go on with `patience=0`)"
        )
    if not result.finalists:
        reason = next((t.reason for t in result.trials if t.reason), "no trial was made")
        raise ModelError(f"all {len(result.trials)} trials failed; the first one with: {reason}")
    return replace(run, result=result)


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


def _header(run: Run) -> dict[str, Any]:
    options, images = run.options, run.images
    assert images is not None
    return {
        "schema": 3,
        "model_sha256": run.graph.sha256,
        "data": images.split.describe(),
        "images_sha256": digest_of(images),
        "budget": dict(run.projection.budget.shares),
        "strategy": options.search,
        "settings": asdict(part(StrategyOptions, options)),
        "seed": options.seed,
        "race": options.race,
        "grid": options.grid,
        "freeze": list(options.freeze),
        "only": list(options.only),
        "min_width": options.min_width,
        "recover": options.recover,
    }
