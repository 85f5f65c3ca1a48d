"""A floor under the score: the cheapest budget whose slim model holds it is searched for.

    margin(share) = score of the slim model - floor, on images that decide

falls as less is kept. Budgets are tried one after the other, each with its share of the trials and with what all
earlier ones have found; the next one lies where a line through the nearest two that hold and do not would cross. A
budget holds where the margin is above zero with the confidence that was asked for: it is taken of ten parts of the
images, so that any task has an interval. The images that decide are seen by no search and no recovery, and no figure of
the report is of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bocr_onnx.data import part
from bocr_onnx.devices import student_quantile
from bocr_onnx.errors import BudgetError, DataError
from bocr_onnx.graph import InputRows
from bocr_onnx.options import MAX_BUDGETS, MOST_SHARE
from bocr_onnx.pipeline.loaded import Images
from bocr_onnx.pipeline.run import Run, Slim
from bocr_onnx.runtime import Outputs, predict_heads
from bocr_onnx.tasks import Task

FIRST_SHARE = 0.5
CLOSE_ENOUGH = 1.05
"""Share that holds over one that does not, from which no further budget is tried."""

DECIDING = 0.4
"""Part of the unseen images that decides; the report is on the others."""

N_PARTS, LEAST_DECIDING = 10, 40


@dataclass(frozen=True, slots=True)
class Floor:
    """What a slim model must not fall below.

    Attributes:
        drop: Largest loss of score, in [0, 1]; None where the score itself is bounded.
        score: Least score; None where the loss is bounded.
        confidence: That it holds.
    """

    drop: float | None
    score: float | None
    confidence: float

    def check(self, deciding: Deciding) -> None:
        """Raises where the original does not hold the floor itself.

        Raises:
            BudgetError: Names its score.
        """
        whole = float(np.mean(deciding.scores))
        if self.score is not None and whole <= self.score:
            raise BudgetError(f"`min_score` must be below the score of the original, {whole:.2%}, got {self.score:g}")

    @property
    def text(self) -> str:
        """Returns it in words."""
        asked = (
            f"a drop of at most {100 * self.drop:g} points" if self.drop is not None else f"a score of {self.score:.4g}"
        )
        return f"{asked} with {self.confidence:.0%} confidence"


@dataclass(frozen=True, slots=True)
class Deciding:
    """Images that decide, and the original's score on each part of them.

    Attributes:
        images: Preprocessed, first axis the images.
        truth: What is scored against.
        task: What a score means.
        scores: The original's scores, shape `(N_PARTS,)`.
    """

    images: InputRows
    truth: Outputs
    task: Task
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Tried:
    """A budget that was tried.

    Attributes:
        share: What it keeps.
        score: Score of its slim model on the images that decide.
        margin: Above the floor, mean.
        sure: Above the floor, at the confidence that was asked for; it holds where this is not negative.
    """

    share: float
    score: float
    margin: float
    sure: float

    @property
    def holds(self) -> bool:
        """Returns whether the floor is held."""
        return self.sure >= 0


def divide(images: Images) -> tuple[Images, Deciding]:
    """Returns images for the report, and those that decide; both are close to stratified.

    Raises:
        DataError: There are too few.
    """
    n = int(len(images.final) * DECIDING)
    if n < LEAST_DECIDING:
        raise DataError(
            f"`data={images.data.pools.path}` must leave {LEAST_DECIDING} images to decide by, and more to report "
            f"on, got {len(images.final)} unseen ones"
        )
    task, truth = images.task, _rows(images.final_truth, slice(0, n))
    reference = _rows(images.final_reference, slice(0, n))
    scores = _scores(task, reference, truth)
    deciding = Deciding(part(images.final, 0, n), truth, task, scores)
    final_reference, final_truth = (
        _rows(found, slice(n, None)) for found in (images.final_reference, images.final_truth)
    )
    baseline = task.score(final_reference, final_truth).value
    final = images.split.indices["final"]
    indices = dict(images.split.indices) | {
        "deciding": replace(final, rows=final.rows[:n]),
        "final": replace(final, rows=final.rows[n:]),
    }
    rest = images.split.final.take(np.arange(n, len(images.final)))
    split = replace(images.split, final=rest, indices=indices)
    kept = replace(
        images, split=split, final=part(images.final, n, len(images.final)), final_reference=final_reference,
        final_truth=final_truth, baseline=baseline,
    )  # fmt: skip
    return kept, deciding


def judge(floor: Floor, deciding: Deciding, run: Run, slim: Slim, share: float) -> Tried:
    """Returns how a slim model stands to the floor.

    Student's interval of the parts, and never less than what as many images could hide where all parts agree: none of n
    images lost leaves a share of -ln(1 - confidence) / n possible.
    """
    outputs = predict_heads(run.graph, slim.proto, deciding.images, deciding.task.heads)
    found = np.array(_scores(deciding.task, outputs, deciding.truth))
    least = np.array(deciding.scores) - floor.drop if floor.drop is not None else np.full(len(found), floor.score)
    margins = found - least
    reach = student_quantile(floor.confidence, len(margins) - 1) * float(margins.std(ddof=1)) / len(margins) ** 0.5
    reach = max(reach, -math.log(1 - floor.confidence) / len(deciding.images))
    return Tried(share, float(found.mean()), float(margins.mean()), float(margins.mean()) - reach)


def _rows(outputs: Outputs, rows: slice) -> Outputs:
    return tuple(array[rows] for array in outputs)


def _scores(task: Task, outputs: Outputs, truth: Outputs) -> tuple[float, ...]:
    """Returns the score of each part; parts are interleaved, as the images are close to stratified in their order."""
    return tuple(
        task.score(_rows(outputs, slice(i, None, N_PARTS)), _rows(truth, slice(i, None, N_PARTS))).value
        for i in range(N_PARTS)
    )


def search_share(tried: Callable[[float], Tried], least: float) -> tuple[Tried, ...]:
    """Returns the budgets that were tried, in their order.

    Args:
        tried: Tries a budget.
        least: Smallest share that can be reached.
    """
    found: list[Tried] = []
    share = max(FIRST_SHARE, least)
    while len(found) < MAX_BUDGETS:
        found.append(tried(round(share, 4)))
        holding = min((one for one in found if one.holds), key=lambda one: one.share, default=None)
        failing = max((one for one in found if not one.holds), key=lambda one: one.share, default=None)
        if holding is None and failing is not None:
            if failing.share >= MOST_SHARE:
                break
            share = min(MOST_SHARE, failing.share + (1 - failing.share) / 2 + 0.02)
        elif failing is None and holding is not None:
            if holding.share <= least * CLOSE_ENOUGH:
                break
            share = max(least, holding.share * 0.6)
        elif holding is not None and failing is not None:
            if holding.share <= failing.share * CLOSE_ENOUGH:
                break
            share = _between(failing, holding)
    return tuple(found)


def _between(failing: Tried, holding: Tried) -> float:
    """Returns where a line through both crosses the floor, not too near to either end."""
    width = holding.share - failing.share
    slope = holding.sure - failing.sure
    at = -failing.sure / slope if slope > 0 else 0.5
    return failing.share + width * float(np.clip(at, 0.25, 0.75))


def cheapest(found: tuple[Tried, ...], floor: Floor, name: str) -> Tried:
    """Returns the cheapest budget that holds.

    Raises:
        BudgetError: None does; says how far the nearest one is.
    """
    holding = [one for one in found if one.holds]
    if not holding:
        nearest = max(found, key=lambda one: one.sure)
        raise BudgetError(
            f"a floor of {floor.text} must be reachable; with `{name}={nearest.share:g}` the score is "
            f"{nearest.score:.2%}, {100 * -nearest.sure:.2f} points short with its interval",
            hint="More images make the interval narrower; `finetune` and more `trials` the score higher.",
        )
    return min(holding, key=lambda one: one.share)


def record_of(found: tuple[Tried, ...], floor: Floor, name: str) -> dict[str, Any]:
    """Returns what a report says of the search for a budget."""
    rows = [
        {name: one.share, "score": one.score, "margin": one.margin, "sure": one.sure, "holds": one.holds}
        for one in found
    ]
    return {"floor": floor.text, "minimize": name, "budgets": rows}
