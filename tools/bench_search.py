"""Runs search strategies over seeds at equal evaluations; one JSON line per search, and none that is there twice.

Usage:
    python tools/bench_search.py MODEL.onnx --data PATH --flops 0.3 --strategies bocr,local --seeds 0,1,2 --minutes 15
    python tools/bench_search.py MODEL.onnx --data PATH --flops 0.5 --published --strategies bocr-paper,amc

The file that `-o` names is appended to as searches end; those that it holds are not repeated, and no search begins
after `--minutes`. So a benchmark is as many calls as it takes, of one file or of several side by side.

`--published` maximizes what the papers do: top-1 after the closed form alone, of channels ranked by their weights,
with no racing. With `--before SHARE` each strategy searches at that share first and knows those trials. With
`--source MODEL` it searches another model first, in the same way but without its settings, and knows that history.
`--trials-only` emits nothing: what counts is how soon a search finds what it finds. A strategy may be followed by
settings: ``amc:transfer=plain:assistant=on``. Strategies of one seed share images, calibration and sensitivity scan,
which they would all repeat. Tables and plots: tools/plot_search.py.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bocr_onnx.options import PruneOptions
from bocr_onnx.pipeline.history import Recorder, recall
from bocr_onnx.pipeline.measure import load, measure
from bocr_onnx.pipeline.prepare import prepare
from bocr_onnx.pipeline.recover import choose
from bocr_onnx.pipeline.run import Run
from bocr_onnx.pipeline.search import pose, search
from bocr_onnx.recovery import PolicyScorer, Weights, calibrate
from bocr_onnx.runtime import predict_heads, session_threads
from bocr_onnx.search import Evaluation, Journal, SearchResult, Trial, best_trial
from bocr_onnx.search import search as search_policies
from bocr_onnx.search.strategies import STRATEGIES
from bocr_onnx.search.workers import make_workers
from bocr_onnx.slimming import cut

KEYS = (
    "model",
    "flops",
    "published",
    "trials_only",
    "strategy",
    "seed",
    "before",
    "history",
    "trials",
    "round_to",
    "freeze",
    "images",
)
"""What tells searches apart."""

BEFORE = 40
"""Trials of the search at another share that comes before."""

PACKAGES = ("bocr-onnx", "onnxruntime", "torch", "botorch", "numpy")


@dataclass(frozen=True, slots=True)
class PublishedScorer:
    """Scores a policy as the papers do: top-1 after the closed form alone."""

    scorer: PolicyScorer

    def __call__(self, widths: npt.NDArray[np.int64], floor: float | None) -> Evaluation:
        """Returns the evaluation of a policy; nothing is stopped early."""
        start, own = time.perf_counter(), self.scorer
        mask = own.calibration.mask(widths)
        with session_threads(own.threads):
            slim = cut(own.calibration.index, mask, own.calibration.fit(mask))
            outputs = predict_heads(own.calibration.graph, slim, own.images, own.task.heads)
        value = own.task.score(outputs, own.truth).value
        return Evaluation(value, value, value, time.perf_counter() - start)


def main() -> None:
    args = parse()
    end = time.monotonic() + 60 * args.minutes
    held = {key_of(json.loads(line)) for line in args.output.read_text().splitlines()} if args.output.exists() else {}
    for seed in map(int, args.seeds.split(",")):
        wanted = [s for s in args.strategies.split(",") if key_of(settings(args, s, seed)) not in held]
        if not wanted or time.monotonic() >= end:
            continue
        with tempfile.TemporaryDirectory() as folder:
            measured, calibration_s = open_measured(args, open_run(args, "uniform", seed, folder))
            source = None if args.source is None else Source(args, seed, Path(folder))
            for strategy in wanted:
                if time.monotonic() >= end:
                    break
                learned, cost = (None, {}) if source is None else source.history(strategy)
                row = settings(args, strategy, seed) | search_once(args, strategy, seed, measured, learned)
                row |= {"calibration_s": calibration_s, "machine": machine()} | cost
                with args.output.open("a") as lines:
                    lines.write(json.dumps(row) + "\n")
                print(told(row), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--preset")
    parser.add_argument("--preprocess")
    parser.add_argument("--flops", type=float, default=0.5)
    parser.add_argument("--round-to", type=int, default=1)
    parser.add_argument("--freeze", nargs="*", default=())
    parser.add_argument("--strategies", default="sensitivity,bocr")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--images", type=int, default=1_000)
    parser.add_argument("--recovery-images", type=int, default=1_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--published", action="store_true")
    parser.add_argument("--trials-only", action="store_true")
    parser.add_argument("--before", type=float, help="Search at this share of MACs first; its trials are known.")
    parser.add_argument("--source", type=Path, help="Search this model first; its history is known.")
    parser.add_argument("--source-freeze", nargs="*", default=())
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/benchmarks/searches.jsonl"))
    return parser.parse_args()


def settings(args: argparse.Namespace, strategy: str, seed: int) -> dict[str, Any]:
    """Returns what tells a search apart from others."""
    return {
        "model": args.model.name,
        "flops": args.flops,
        "published": args.published,
        "trials_only": args.trials_only,
        "strategy": strategy,
        "seed": seed,
        "before": args.before,
        "history": args.source and args.source.stem,
        "trials": args.trials,
        "round_to": args.round_to,
        "freeze": list(args.freeze),
        "images": [args.images, args.recovery_images],
    }


def key_of(row: dict[str, Any]) -> str:
    return json.dumps([row[name] for name in KEYS])


def machine() -> dict[str, Any]:
    return {"cpu": platform.machine(), "cores": os.cpu_count()} | {name: version(name) for name in PACKAGES}


class Source:
    """Histories of the other model, one for each strategy, made once.

    Args:
        args: Arguments of the command line.
        seed: Seed of its searches.
        folder: For the files.
    """

    def __init__(self, args: argparse.Namespace, seed: int, folder: Path) -> None:
        self._args = argparse.Namespace(**vars(args) | {"model": args.source, "freeze": args.source_freeze})
        self._seed, self._folder = seed, folder
        with tempfile.TemporaryDirectory() as own:
            self._measured, self._measured_s = open_measured(self._args, open_run(self._args, "uniform", seed, own))
        self._made: dict[str, tuple[Path, dict[str, Any]]] = {}

    def history(self, strategy: str) -> tuple[Path, dict[str, Any]]:
        """Returns the history of a search from scratch, and what it cost."""
        name, *_ = strategy.split(":")
        if name not in self._made:
            path, start = self._folder / f"{name}.sqlite", time.perf_counter()
            with tempfile.TemporaryDirectory() as own:
                run = open_run(self._args, name, self._seed, own, history=path).measured_as(self._measured)
                found = search_published(run) if self._args.published else search(run).result
            seconds = self._measured_s + time.perf_counter() - start
            assert found is not None
            self._made[name] = path, {"source_s": round(seconds, 2), "source_trials": len(found.trials)}
        return self._made[name]


def open_run(
    args: argparse.Namespace,
    strategy: str,
    seed: int,
    folder: str,
    *,
    history: Path | None = None,
) -> Run:
    name, *given = strategy.split(":")
    options = PruneOptions(
        args.model,
        flops=args.flops,
        data=args.data,
        preset=args.preset,
        preprocess=args.preprocess,
        search=name,
        trials=args.trials,
        seed=seed,
        patience=0,
        round_to=args.round_to,
        freeze=args.freeze,
        score_images=args.images,
        recovery_images=args.recovery_images,
        history="none" if history is None else str(history),
        output=Path(folder) / "slim.onnx",
        run_dir=Path(folder) / "run",
        **dict(setting.split("=") for setting in given),
    )
    (run,) = prepare(options)
    run.run_dir.create(options)
    return run


def open_measured(args: argparse.Namespace, run: Run) -> tuple[Run, float]:
    start = time.perf_counter()
    with session_threads(args.threads):
        run = measure(load(run))
    assert run.scorer is not None
    assert run.calibration is not None
    if args.published:
        ranked = calibrate(run.index, None).sensitivity.ranked
        calibration = replace(run.calibration, sensitivity=replace(run.calibration.sensitivity, ranked=ranked))
        run = replace(run, calibration=calibration, scorer=replace(run.scorer, calibration=calibration))
    return replace(run, scorer=replace(run.scorer, threads=args.threads)), time.perf_counter() - start  # type: ignore[type-var]


def search_once(
    args: argparse.Namespace, strategy: str, seed: int, measured: Run, learned: Path | None
) -> dict[str, Any]:
    """Returns what a search found, how good that is on unseen images, and what it took.

    Args:
        args: Arguments of the command line.
        strategy: Name and settings.
        seed: Seed of the search.
        measured: The model with its measurements.
        learned: A history; the search sees a copy, so that none learns from another of the benchmark.
    """
    known: tuple[Trial, ...] = ()
    if args.before is not None:
        with tempfile.TemporaryDirectory() as folder:
            first = argparse.Namespace(**vars(args) | {"flops": args.before, "trials": BEFORE})
            before = search(open_run(first, strategy, seed, folder).measured_as(measured))
            known = before.result.trials
    with tempfile.TemporaryDirectory() as folder:
        history = learned and Path(shutil.copy(learned, Path(folder) / "history.sqlite"))
        run = replace(open_run(args, strategy, seed, folder, history=history).measured_as(measured), known=known)
        start = time.perf_counter()
        result = search_published(run) if args.published else search(run).result
        found = {"search_s": round(time.perf_counter() - start, 2)}
        if not args.trials_only:
            found |= emitted(run, *(best_published(run, result) if args.published else chosen(run, result)))
            found["recovery_s"] = round(time.perf_counter() - start - found["search_s"], 2)
    return found | {
        "evaluation_s": round(sum(t.seconds for t in result.trials), 2),
        "proposal_s": round(sum(t.proposal_s for t in result.trials), 2),
        "scores": [t.score for t in result.trials],
        "objectives": [None if t.objective is None else round(t.objective, 5) for t in result.trials],
    }


def emitted(run: Run, widths: npt.NDArray[np.int64], weights: Weights, recovery: str) -> dict[str, Any]:
    """Returns how good a policy is on unseen images."""
    images, scorer = run.images, run.scorer
    assert images is not None
    assert scorer is not None
    slim = cut(run.index, scorer.calibration.mask(widths), weights)
    outputs = predict_heads(run.graph, slim, images.final, scorer.task.heads)
    return {
        "unseen": images.task.score(outputs, images.final_truth).value,
        "baseline": images.baseline,
        "n_unseen": len(images.final),
        "kept_macs": float(run.cost.macs(widths)[0] / run.cost.macs(run.cost.full)[0]),
        "recovery": recovery,
        "widths": [int(w) for w in widths],
    }


def chosen(run: Run, result: SearchResult) -> tuple[npt.NDArray[np.int64], Weights, str]:
    """Returns what a run would emit, with its recovery."""
    assert run.scorer is not None
    return choose(replace(run, result=result), run.scorer, result)


def search_published(run: Run) -> SearchResult:
    """Returns the search of the published score."""
    assert run.scorer is not None
    header = {"published": True, "model": run.graph.sha256}
    journal, workers = Journal(run.run_dir.journal, header), make_workers(PublishedScorer(run.scorer), 1)
    problem = pose(run, recall(run, header, fresh=True))
    recorder, strategy = Recorder(run, problem, header), STRATEGIES[run.options.search].strategy
    return search_policies(problem, strategy, workers, journal, on_trial=recorder.add, race=False)


def best_published(run: Run, result: SearchResult) -> tuple[npt.NDArray[np.int64], Weights, str]:
    """Returns the policy of the best published score, with the published recovery."""
    best = best_trial(result.trials)
    assert best is not None
    assert run.calibration is not None
    widths = np.array(best.widths, dtype=np.int64)
    return widths, run.calibration.fit(run.calibration.mask(widths)), "closed form"


def told(row: dict[str, Any]) -> str:
    unseen = "" if row["trials_only"] else f"{row['unseen']:.4f} of {row['baseline']:.4f}, "
    return f"{row['model']} at {row['flops']:g}, {row['strategy']}, seed {row['seed']}: {unseen}{row['search_s']:.0f} s"


if __name__ == "__main__":
    main()
