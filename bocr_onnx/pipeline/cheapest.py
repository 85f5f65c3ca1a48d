"""The cheapest model whose score holds a floor: budgets are tried until it is found."""

from __future__ import annotations

import math
from dataclasses import replace

from bocr_onnx.cost import BOUNDS
from bocr_onnx.options import MAX_BUDGETS
from bocr_onnx.pipeline.floor import Floor, Tried, cheapest, divide, judge, record_of, search_share
from bocr_onnx.pipeline.measure import load, measure
from bocr_onnx.pipeline.prepare import begin
from bocr_onnx.pipeline.run import Run
from bocr_onnx.pipeline.rundir import RunDir
from bocr_onnx.pipeline.stages import EMIT, FINISH, SHAPE, create, go, reported
from bocr_onnx.report import Report
from bocr_onnx.search import Budget


def run_floor(run: Run) -> Report:
    """Tries budgets until the cheapest one is found whose slim model holds its floor, and emits that model.

    Args:
        run: A run at any budget of the quantity to minimize.

    Raises:
        BudgetError: No budget holds the floor.
    """
    options, name, top = run.options, run.options.minimize, run.run_dir
    floor = Floor(None if options.max_drop is None else options.max_drop / 100, options.min_score, options.confidence)
    begun = go(run, {"data": load})
    assert begun.images is not None
    images, deciding = divide(begun.images)
    floor.check(deciding)
    shaped: dict[float, Run] = {}

    def tried(share: float) -> Tried:
        bounds = {**begun.projection.budget.shares, name: share}
        folder = RunDir(top.path / Budget(bounds).label)
        part = top.named(options).part(len(shaped), MAX_BUDGETS, bounds, str(run.output))
        known = tuple(trial for other in shaped.values() for trial in other.result.trials)
        one = replace(begin(part, run.model, folder, run.history).measured_as(begun), known=known, pools=run.pools)
        with folder.alone():
            create(folder, part, one)
            shaped[share] = go(one, SHAPE)
        slim = shaped[share].slim
        assert slim is not None
        found = judge(floor, deciding, run, slim, share)
        run.progress.note(f"{name} {share:g}: {found.score:.2%}, {'holds' if found.holds else 'misses'} the floor")
        return found

    with top.alone(run.output):
        create(top, options, run)
        begun = go(replace(begun, images=images), {"calibration": measure})
        least = float(BOUNDS[name].share(run.cost, run.projection.space.low))
        found = search_share(tried, math.ceil(1000 * least) / 1000 + 0.001)
        best = shaped[cheapest(found, floor, name).share]
        return reported(go(replace(best, run_dir=top, floor=record_of(found, floor, name)), EMIT | FINISH))
