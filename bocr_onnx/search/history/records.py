"""What the history keeps of a search and of its trials."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np

from bocr_onnx.cost import quantities_of
from bocr_onnx.search.prior import Row
from bocr_onnx.search.projection import Projection
from bocr_onnx.search.trial import Trial

_SHORT = 12


def search_key(header: dict[str, Any]) -> str:
    """Returns the key of a search: sha256 of the canonical JSON of its journal's header.

    Example:
        >>> search_key({"seed": 1, "grid": 8}) == search_key({"grid": 8, "seed": 1})
        True
    """
    canonical = json.dumps(header, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def short_key(key: str) -> str:
    """Returns the part of a key that people are shown."""
    return key[:_SHORT]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class SearchRecord:
    """One search: which function it maximizes, and what its groups look like.

    Attributes:
        key: See `search_key`; the same search again has the same one.
        model_sha256: Digest of the model.
        model: Name of its file.
        data_digest: Digest of the images that trials are scored on.
        recover: Recovery of the emitted model.
        strategy: Name of the search.
        seed: Seed for all random draws.
        grid: Channel grid.
        budget: Shares that are kept, by name.
        group_names: Groups of channels.
        full: Channels of each group.
        features: One row per group; see `bocr_onnx.search.features.group_features`.
        published: One row per group; see `bocr_onnx.search.features.published_features`.
        allocation: Keep ratios of the allocation on the error curves, one per group.
        version: Version of bocr-onnx.
        created: When it began: ISO, UTC, whole seconds.
    """

    key: str
    model_sha256: str
    model: str
    data_digest: str
    recover: str
    strategy: str
    seed: int
    grid: int
    budget: dict[str, float]
    group_names: tuple[str, ...]
    full: tuple[int, ...]
    features: tuple[Row, ...]
    published: tuple[Row, ...]
    allocation: Row
    version: str = field(default_factory=lambda: version("bocr-onnx"))
    created: str = field(default_factory=_now)


@dataclass(frozen=True, slots=True)
class StoredTrial:
    """A trial and what its policy costs; the history keeps neither its origin nor its reason.

    Attributes:
        trial: The trial.
        use: Share of the budget that its policy uses; at most 1 is within it.
        quantities: Each quantity of its policy, by the field of `bocr_onnx.cost.Quantity`.
    """

    trial: Trial
    use: float
    quantities: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        """Returns the JSON of the trial."""
        trial = self.trial
        known = ("number", "widths", "score", "objective", "first", "seconds")
        told = {name: getattr(trial, name) for name in known}
        return told | {"state": trial.state.value, "use": self.use, **self.quantities}


def store_trial(projection: Projection, trial: Trial) -> StoredTrial:
    """Returns a trial with what its policy costs, and how much of the budget it uses."""
    widths = np.array([trial.widths], dtype=np.int64)
    use = float(projection.budget.use(projection.cost, widths)[0])
    return StoredTrial(trial, use, quantities_of(projection.cost, widths))


@dataclass(frozen=True, slots=True)
class StoredSearch:
    """A search and its trials, by number."""

    record: SearchRecord
    trials: tuple[StoredTrial, ...]

    def as_json(self) -> dict[str, Any]:
        """Returns the JSON of the search."""
        return asdict(self.record) | {"trials": [t.as_json() for t in self.trials]}


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """A search in a line.

    Attributes:
        key: The first characters of its key.
        model: Name of the model's file.
        budget: Shares that are kept, by name.
        strategy: Name of the search.
        seed: Seed for all random draws.
        n_trials: Trials that are kept, COMPLETE or STOPPED.
        best_score: Score of the trial with the highest objective; None without a COMPLETE one.
        best_objective: Its objective.
        created: When it began: ISO, UTC.
    """

    key: str
    model: str
    budget: dict[str, float]
    strategy: str
    seed: int
    n_trials: int
    best_score: float | None
    best_objective: float | None
    created: str
