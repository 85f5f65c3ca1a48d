"""Racing: a trial that is hopeless on the first slice of images is not scored on the rest.

All policies are scored on the same images, so the first slice differs from all of them by nearly the same amount for
every policy:

    objective = first + offset + noise

With offset (median) and noise (standard deviation) taken from the trials scored on all images, a trial is hopeless
where even first + offset + noise stays below the best objective: one that is as good as the best is stopped with a
chance of 16 %, one that is better by two noises with 0.1 %. What is stopped still teaches the surrogate, with
first + offset.

References:
    Maron & Moore, "Hoeffding races", NeurIPS 1993; Birattari et al., "A racing algorithm for configuring
    metaheuristics", GECCO 2002.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bocr_onnx.search.trial import Trial, completed

MIN_COMPLETE = 5
"""Trials scored on all images before any is stopped."""

N_NOISE = 1.0
MIN_NOISE = 0.005


def floor(trials: tuple[Trial, ...]) -> float | None:
    """Returns the objective on the first slice below which a trial is hopeless, or None while too little is known.

    Example:
        >>> from bocr_onnx.search.trial import TrialState
        >>> done = [Trial(i, (8,), TrialState.COMPLETE, 0.9, 2.0 + i, first=2.1 + i) for i in range(5)]
        >>> round(floor(tuple(done)), 3)
        6.095
        >>> floor(tuple(done[:4])) is None
        True
    """
    offsets = _offsets(trials)
    if len(offsets) < MIN_COMPLETE:
        return None
    noise = max(float(np.std(offsets, ddof=1)), MIN_NOISE)
    best = max(t.objective for t in completed(trials) if t.objective is not None)
    return best - float(np.median(offsets)) - N_NOISE * noise


def objectives(trials: tuple[Trial, ...]) -> npt.NDArray[np.float64]:
    """Returns the objective of every scored trial, shape `(n_trials,)`; of a stopped one what is expected.

    Args:
        trials: Each COMPLETE or STOPPED.
    """
    offsets = _offsets(trials)
    offset = float(np.median(offsets)) if len(offsets) else 0.0
    return np.array([t.objective if t.objective is not None else (t.first or 0.0) + offset for t in trials])


def _offsets(trials: tuple[Trial, ...]) -> npt.NDArray[np.float64]:
    pairs = [(t.objective, t.first) for t in completed(trials)]
    return np.array([whole - first for whole, first in pairs if whole is not None and first is not None])
