"""Runs search strategies over seeds at equal evaluations, or times a trial against bare inference; raw samples to JSON.

Usage:
    python tools/bench_search.py MODEL.onnx --data PATH --flops 0.5 --strategies bocr,local --seeds 0,1,2,3,4 -o A.json
    python tools/bench_search.py MODEL.onnx --data PATH --flops 0.5 --trial-cost -o B.json

With --before SHARE each strategy searches at that share first and knows those trials.
With --history FILE every run knows what that history holds (transfer of an agent, rows at other budgets).
Strategies of one seed share images, calibration and sensitivity scan, which they would all repeat. A strategy may be
followed by settings: ``amc:transfer=plain:assistant=on``. Runs that the output file already holds are not repeated.
Plots and tables: tools/plot_search.py.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import tempfile
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from bocr_onnx.options import PruneOptions
from bocr_onnx.pipeline.measure import load, measure
from bocr_onnx.pipeline.prepare import prepare
from bocr_onnx.pipeline.recover import choose
from bocr_onnx.pipeline.run import Run
from bocr_onnx.pipeline.search import search
from bocr_onnx.runtime import open_session, predict, session_threads
from bocr_onnx.search import Trial
from bocr_onnx.slimming import cut
from bocr_onnx.tasks import score_outputs


def open_run(
    args: argparse.Namespace, strategy: str, seed: int, folder: str, flops: float | None = None, trials: int = 0
) -> Run:
    name, *settings = strategy.split(":")
    options = PruneOptions(
        args.model,
        flops=flops or args.flops,
        data=args.data,
        preset=args.preset,
        preprocess=args.preprocess,
        search=name,
        trials=trials or args.trials,
        seed=seed,
        race=args.race,
        patience=0,
        round_to=args.round_to,
        freeze=args.freeze,
        score_images=args.images,
        recovery_images=args.recovery_images,
        history=_copied(args.history, folder),
        output=Path(folder) / "slim.onnx",
        run_dir=Path(folder) / "run",
        **dict(s.split("=") for s in settings),
    )
    (run,) = prepare(options)
    run.run_dir.create(options)
    return run


def _copied(history: Path | None, folder: str) -> str:
    """Returns a copy of the history, so that no run learns from another of the benchmark."""
    if history is None:
        return "none"
    return str(shutil.copy(history, Path(folder) / "history.sqlite"))


def open_measured(args: argparse.Namespace, run: Run) -> tuple[Run, float]:
    start = time.perf_counter()
    with session_threads(args.threads):
        run = measure(load(run))
    assert run.scorer is not None
    return replace(run, scorer=replace(run.scorer, threads=args.threads)), time.perf_counter() - start


def search_before(args: argparse.Namespace, strategy: str, seed: int, measured: Run) -> tuple[Trial, ...]:
    """Returns the trials at another budget that a search may begin with."""
    if args.before is None:
        return ()
    with tempfile.TemporaryDirectory() as folder:
        run = open_run(args, strategy, seed, folder, args.before, args.before_trials)
        return search(run.measured_as(measured)).result.trials


def search_once(args: argparse.Namespace, strategy: str, seed: int, measured: Run) -> dict[str, Any]:
    known = search_before(args, strategy, seed, measured)
    with tempfile.TemporaryDirectory() as folder:
        run = replace(open_run(args, strategy, seed, folder).measured_as(measured), known=known)
        start = time.perf_counter()
        run = search(run)
        searched = time.perf_counter()
        assert run.scorer is not None
        assert run.images is not None
        widths, weights, recovery = choose(run, run.scorer, run.result)
        chosen = time.perf_counter()
    images, result = run.images, run.result
    slim = cut(run.index, run.scorer.calibration.mask(widths), weights)
    score = score_outputs(predict(run.graph, slim, images.final), images.final_truth)
    best = max((t for t in result.trials if t.objective is not None), key=lambda t: t.objective or 0, default=None)
    return {
        "strategy": strategy,
        "seed": seed,
        "unseen": score.value,
        "baseline": images.baseline,
        "n_unseen": score.n_samples,
        "kept_macs": float(run.cost.macs(widths)[0] / run.cost.macs(run.cost.full)[0]),
        "best_objective": None if best is None else best.objective,
        "search_s": searched - start,
        "finalists_s": chosen - searched,
        "evaluation_s": sum(t.seconds for t in result.trials),
        "proposal_s": sum(t.proposal_s for t in result.trials),
        "widths": [int(w) for w in widths],
        "recovery": recovery,
        "trials": [
            {
                "state": t.state.value,
                "score": t.score,
                "objective": t.objective,
                "first": t.first,
                "seconds": round(t.seconds, 4),
                "proposal_s": round(t.proposal_s, 4),
                "origin": t.origin,
            }
            for t in result.trials
        ],
    }


def trial_cost(args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        run = open_run(args, "uniform", 0, folder)
        run, _ = open_measured(args, run)
    scorer = run.scorer
    assert scorer is not None
    widths = run.projection.execute(np.full(len(run.index.groups), 0.5))
    mask = scorer.calibration.mask(widths)
    session = open_session(cut(run.index, mask), threads=args.threads)
    samples: dict[str, list[float]] = {"trial": [], "bare": []}
    for i in range(args.runs + 1):
        start = time.perf_counter()
        predict(run.graph, session, scorer.images)
        middle = time.perf_counter()
        scorer.score(widths, "oneshot")
        end = time.perf_counter()
        if i:  # the first one warms up
            samples["bare"].append(middle - start)
            samples["trial"].append(end - middle)
    ratios = [t / b for t, b in zip(samples["trial"], samples["bare"], strict=True)]
    print(
        f"one trial {np.median(samples['trial']):.2f} s, bare inference {np.median(samples['bare']):.2f} s, "
        f"ratio {np.median(ratios):.2f} (median of {args.runs})"
    )
    return {"unit": "s", "samples": samples, "median_ratio": float(np.median(ratios))}


def searches(args: argparse.Namespace, record: dict[str, Any]) -> None:
    strategies = args.strategies.split(",")
    for seed in map(int, args.seeds.split(",")):
        held = {(r["strategy"], r["seed"]) for r in record["runs"]}
        wanted = [s for s in strategies if (s, seed) not in held]
        if not wanted:
            continue
        with tempfile.TemporaryDirectory() as folder:
            measured, calibration_s = open_measured(args, open_run(args, "uniform", seed, folder))
        for strategy in wanted:
            run = search_once(args, strategy, seed, measured) | {"calibration_s": calibration_s}
            record["runs"].append(run)
            args.output.write_text(json.dumps(record) + "\n")
            stopped = sum(t["state"] == "stopped" for t in run["trials"])
            print(
                f"{strategy}, seed {seed}: {run['unseen']:.4f} of {run['baseline']:.4f} at {run['kept_macs']:.4f}; "
                f"search {run['search_s']:.0f} s (evaluation {run['evaluation_s']:.0f}, "
                f"proposals {run['proposal_s']:.0f}, {stopped} stopped)",
                flush=True,
            )


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
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--images", type=int, default=2_000)
    parser.add_argument("--recovery-images", type=int, default=1_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--race", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--before", type=float, help="Search at this share of MACs first; its trials are known.")
    parser.add_argument("--before-trials", type=int, default=100)
    parser.add_argument("--history", type=Path, help="What every run knows before it begins; nothing by default.")
    parser.add_argument("--trial-cost", action="store_true")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("-o", "--output", type=Path, default=Path("bench_search.json"))
    return parser.parse_args()


def main() -> None:
    args = parse()
    packages = ("bocr-onnx", "onnxruntime", "torch", "botorch", "numpy")
    record: dict[str, Any] = {
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {name: version(name) for name in packages},
        "model": args.model.name,
        "flops": args.flops,
        "round_to": args.round_to,
        "freeze": list(args.freeze),
        "race": args.race,
        "trials": args.trials,
        "images": [args.images, args.recovery_images],
        "history": args.history is not None,
        "before": args.before,
        "runs": [],
    }
    if args.trial_cost:
        record["trial_cost"] = trial_cost(args)
        args.output.write_text(json.dumps(record) + "\n")
        return
    if args.output.exists():
        held = json.loads(args.output.read_text())
        if any(held.get(k) != v for k, v in record.items() if k != "runs"):
            raise SystemExit(f"{args.output} must hold runs of these settings: name another file with -o")
        record = held
    searches(args, record)


if __name__ == "__main__":
    main()
